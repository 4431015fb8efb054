"""Registered networks to restore photographs with; imports MLflow, so only where one is wanted."""

import logging
from collections.abc import Sequence

from flows.planning.shipped_networks import better_shipped
from flows.settings import settings
from pipeline.restoring.batch_file import NetworkSource
from pipeline.served.facts import facts_in
from storage.batches.batch_settings import UsedNetwork
from storage.registry.model_files import PROGRAM
from storage.registry.model_registry import ModelRegistry, RegisteredVersion, scores_of
from storage.registry.registered_version import RegistryError

RESCALED = "-rescaled-"
"""Part of the names of networks for pictures that were made smaller before they were compressed."""

log = logging.getLogger(__name__)


def champions(*, strict: bool) -> Sequence[UsedNetwork]:
    """Return every registered champion for photographs as they are.

    Of those scored on the same dataset, the one with the higher PSNR comes first; one with less
    PSNR than a shipped network is left out, with a warning. If the registry does not answer there
    are none, with a warning, or if `strict`, ConnectionError is raised.
    """
    try:
        models = ModelRegistry(settings().mlflow_uri).list_models()
    except Exception as error:  # a damaged database fails in many ways; the others do without it
        reason = str(error).partition("\n")[0]
        if strict:
            raise ConnectionError(f"which networks are champions is not known: {reason}") from error
        log.warning("only shipped networks are used: %s", reason)
        return []
    held = [v for versions in models.values() for v in versions if "champion" in v.aliases]
    usable = [v for v in held if v.qfs and RESCALED not in v.name and not _is_beaten(v)]
    return [_choice(found, "champion") for found in sorted(usable, key=_rank)]


def named_choice(model: str, *, known: str) -> UsedNetwork:
    """Return the registered network that a user asked for.

    `known` lists the shipped networks. Raises ValueError that lists what there is when the model,
    version or alias does not exist or does not say which quality factors it is for.
    """
    try:
        found = ModelRegistry(settings().mlflow_uri).resolve(model)
    except RegistryError as error:
        raise _explained(error, f"{error}. Shipped networks: {known}") from error
    if not found.qfs:
        raise ValueError(
            f"{found.uri} has no tag `qfs`, the quality factors that it is for: qfactory did not "
            f"register it. Shipped networks: {known}"
        )
    _, at, alias = model.partition("@")
    return _choice(found, alias if at else "", asked=True)


def program_of(network: UsedNetwork) -> NetworkSource:
    """Download a network from the registry.

    Raises ValueError when its files are no good, ConnectionError when the registry does not answer.
    """
    registry = ModelRegistry(settings().mlflow_uri)
    try:
        found = registry.resolve(network.uri)
        content = registry.program(network.uri)
    except RegistryError as error:
        raise _explained(error, str(error)) from error
    return NetworkSource(network=network, content=content, facts=facts_in(found.tags))


def _explained(error: RegistryError, message: str) -> ValueError | ConnectionError:
    """Return what the user is told: the registry names a cause where it did not answer."""
    return ValueError(message) if error.__cause__ is None else ConnectionError(message)


def _choice(found: RegisteredVersion, alias: str, *, asked: bool = False) -> UsedNetwork:
    return UsedNetwork(
        name=f"{found.uri} (@{alias})" if alias else found.uri,
        uri=found.uri,
        qfs=found.qfs,
        sha256=found.digests.get(PROGRAM, ""),
        asked=asked,
        bfloat16_loss_db=facts_in(found.tags).bfloat16_loss_db,
    )


def _is_beaten(found: RegisteredVersion) -> bool:
    """Tell, also the user, whether a shipped network scored higher on the same set."""
    scores = scores_of(found)
    better = better_shipped(scores) if scores is not None else None
    if scores is None or better is None:
        return False
    name, psnr = better
    log.warning(
        "%s has %.2f dB on %s, the shipped %s %.2f: the better one is used; `--model %s` takes it "
        "all the same",
        found.uri, scores.psnr, scores.label, name, psnr, found.uri,
    )  # fmt: skip
    return True


def _rank(found: RegisteredVersion) -> tuple[str, float, str]:
    scores = scores_of(found)
    return ("", 0.0, found.name) if scores is None else (scores.dataset, -scores.psnr, found.name)
