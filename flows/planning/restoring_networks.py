"""The networks that photographs can be restored with: registered champions and those that ship."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flows.planning.shipped_networks import (
    ZOO,
    check_registry,
    digest_of,
    shipped_loss_db,
    shipped_names,
    shipped_weights,
    weights_of,
)
from flows.settings import settings
from pipeline.networks.devices import PrecisionChoice
from pipeline.networks.weights import load_weights
from pipeline.restoring.batch_file import NetworkSource, open_when_used
from pipeline.restoring.one_photograph import Network
from storage import files
from storage.batches.batch_settings import REGISTERED, UsedNetwork, read_settings

log = logging.getLogger(__name__)


def available_networks(
    model: str | None = None, precision: PrecisionChoice = "auto"
) -> Sequence[Network]:
    """Return the networks of `network_choices`, each of which is loaded when it is first used.

    Raises ValueError for a precision that the device does not compute in.
    """
    choices = network_choices(model)
    return [open_when_used(choice, partial(fetch, choice), precision) for choice in choices]


def network_choices(model: str | None = None, *, strict: bool = False) -> Sequence[UsedNetwork]:
    """Return the networks to choose from, those before others that are to be preferred.

    Without `model` these are the champions of all registered models, but for those that a shipped
    network is known to beat, then the shipped weights. A registry is asked only if there is one; if
    it cannot be reached, a warning says so, or if `strict`, ConnectionError is raised. `model` is
    `models:/NAME@ALIAS`, `models:/NAME/VERSION`, NAME (its champion), a shipped network's name, or
    the path or URI of weights; then this network is the only one. Raises an error that lists what
    there is, unless there is something.
    """
    if model is not None:
        return [_named(model)]
    found = [*_registered(strict=strict), *_shipped()]
    if not found:
        raise ValueError(
            f"no network to restore with: {ZOO} holds no weights and the registry no champion; "
            "name one with --model NAME|WEIGHTS, or train one: `make demo` in two minutes, "
            "`qfactory study` better ones"
        )
    return found


def _named(model: str) -> UsedNetwork:
    """Return the one network that a user asked for."""
    if not model.startswith(REGISTERED):
        if model in shipped_weights():
            return _of_weights(model, f"{model} (shipped)", asked=True)
        if files.exists(model):
            uri = model if "://" in model else str(Path(model).absolute())
            return _of_weights(uri, model, asked=True)
    check_registry(model)
    from flows.planning import registered_networks  # imports MLflow, which takes seconds

    return registered_networks.named_choice(model, known=shipped_names())


def _registered(*, strict: bool) -> Sequence[UsedNetwork]:
    """Return the registered champions; nothing where no registry is."""
    if not settings().has_mlflow:
        return []
    from flows.planning import registered_networks  # imports MLflow, which takes seconds

    return registered_networks.champions(strict=strict)


def _shipped() -> Sequence[UsedNetwork]:
    """Return the shipped networks; where there are blind ones, only those.

    The blind ones are better than quickres-qf10 at that very quality factor.
    """
    found = []
    for name in shipped_weights():
        try:
            found.append(_of_weights(name, f"{name} (shipped)"))
        except ValueError as error:
            log.warning("%s is not used: %s", name, error)
    return [network for network in found if len(network.qfs) > 1] or found


def _of_weights(uri: str, name: str, *, asked: bool = False) -> UsedNetwork:
    """Return the network of weights that `weights_of` finds."""
    weights = weights_of(uri)
    origin, _ = load_weights(weights)
    digest = digest_of(weights)
    return UsedNetwork(
        name=name,
        uri=uri,
        qfs=origin.qfs,
        sha256=digest,
        asked=asked,
        bfloat16_loss_db=shipped_loss_db(digest),
    )


def networks_for(
    outputs: str, model: str | None = None, *, new_networks: bool = False
) -> tuple[UsedNetwork, ...]:
    """Return the networks to restore with: those that an output folder was begun with, if any.

    With `model`, see `network_choices`, or `new_networks` the folder is not asked. Raises
    ConnectionError when the registry does not answer, and ValueError when there is no such network
    or one that was recorded is gone.
    """
    recorded = None if model or new_networks else read_settings(outputs)
    if recorded is None:
        return tuple(network_choices(model, strict=True))
    for network in recorded.networks:
        _check_is_there(network, outputs)
    return recorded.networks


def fetch(network: UsedNetwork) -> NetworkSource:
    """Return a network with its file.

    A registered program's digests are verified, and one with a pickle inside is refused.
    """
    if network.is_registered:
        from flows.planning import registered_networks  # imports MLflow, which takes seconds

        return registered_networks.program_of(network)
    return NetworkSource(network=network, content=files.read_bytes(weights_of(network.uri)))


def _check_is_there(network: UsedNetwork, outputs: str) -> None:
    """Raise ValueError unless a recorded network is there and its file is the same."""
    try:
        (found,) = network_choices(network.uri, strict=True)
        reason = "" if found.sha256 == network.sha256 else "its file has changed"
    except ValueError as error:
        reason = str(error)
    if reason:
        raise ValueError(
            f"{outputs} was begun with {network.name}, which is gone: {reason}. Add "
            "--new-networks to restore what is not done yet with today's"
        )
