"""Registered networks to restore photographs with; imports MLflow, so only where one is wanted."""

import logging
from collections.abc import Sequence

from flows.networks import open_network
from flows.settings import settings
from pipeline.restore import Network, when_used
from pipeline.tiles import Restorer
from storage.model_files import RegistryError
from storage.model_registry import ModelRegistry, RegisteredVersion, scores_of

RESCALED = "-rescaled-"
"""Part of the names of networks for pictures that were made smaller before they were compressed."""

log = logging.getLogger(__name__)


def champions() -> Sequence[Network]:
    """Return every registered champion for photographs as they are; nothing if none answers.

    Of those scored on the same dataset, the one with the higher PSNR comes first.
    """
    try:
        models = ModelRegistry(settings().mlflow_uri).list_models()
    except Exception as error:  # a damaged database fails in many ways; the others do without it
        log.warning("only shipped networks are used: %s", str(error).partition("\n")[0])
        return []
    held = [v for versions in models.values() for v in versions if "champion" in v.aliases]
    usable = [v for v in held if _qfs(v) and RESCALED not in v.name]
    return [_network(found, "champion") for found in sorted(usable, key=_rank)]


def named_network(model: str, *, known: str) -> Network:
    """Return the registered network that a user asked for, loaded.

    `known` lists the shipped networks. Raises ValueError that lists what there is when the model,
    version or alias does not exist or does not say which quality factors it is for.
    """
    try:
        found = ModelRegistry(settings().mlflow_uri).resolve(model)
    except RegistryError as error:
        raise ValueError(f"{error}. Shipped networks: {known}") from error
    if not _qfs(found):
        raise ValueError(
            f"{found.uri} has no tag `qfs`, the quality factors that it is for: qfactory did not "
            f"register it. Shipped networks: {known}"
        )
    _, at, alias = model.partition("@")
    return _network(found, alias if at else "", asked=True)


def _network(found: RegisteredVersion, alias: str, *, asked: bool = False) -> Network:
    def load() -> Restorer:
        try:
            restorer = open_network(found.uri).restorer
        except RegistryError as error:
            raise ValueError(str(error)) from error
        assert restorer is not None  # only `jpeg` has none
        return restorer

    name = f"{found.uri} (@{alias})" if alias else found.uri
    return Network(name=name, qfs=_qfs(found), restorer=when_used(load), asked=asked)


def _qfs(found: RegisteredVersion) -> tuple[int, ...]:
    return tuple(int(qf) for qf in found.tags.get("qfs", "").split() if qf.isdigit())


def _rank(found: RegisteredVersion) -> tuple[str, float, str]:
    scores = scores_of(found)
    return ("", 0.0, found.name) if scores is None else (scores.dataset, -scores.psnr, found.name)
