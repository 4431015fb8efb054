"""The networks that photographs can be restored with: registered champions and those that ship."""

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from flows.settings import PROJECT, settings
from pipeline.restore import Network, when_used
from pipeline.tiles import Restorer, network_restorer
from pipeline.training_job import WEIGHTS
from pipeline.weights import load_network, load_weights
from storage import files
from storage.restore_manifest import UsedNetwork

ZOO = PROJECT / "models" / "zoo"
PREFERRED = ("quickres-blind", "quickres-qf10")
"""Of shipped networks of the same quality factors, those that score better on LIVE1."""
SQLITE = "sqlite:///"
REGISTERED = "models:/"

log = logging.getLogger(__name__)


def available_networks(model: str | None = None) -> Sequence[Network]:
    """Return the networks of `network_choices`, each of which is loaded when it is first used."""
    return [
        Network(
            name=choice.name,
            qfs=choice.qfs,
            restorer=when_used(partial(_load, choice)),
            asked=choice.asked,
        )
        for choice in network_choices(model)
    ]


def network_choices(model: str | None = None, *, strict: bool = False) -> Sequence[UsedNetwork]:
    """Return the networks to choose from, those before others that are to be preferred.

    Without `model` these are the champions of all registered models, then the shipped weights. A
    registry is asked only if there is one; if it cannot be reached, a warning says so, or if
    `strict`, ConnectionError is raised. `model` is `models:/NAME@ALIAS`, `models:/NAME/VERSION`,
    NAME (its champion), a shipped network's name, or the path or URI of weights; then this network
    is the only one. Raises an error that lists what there is, unless there is something.
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


def weights_of(uri: str) -> str:
    """Return the file of weights: of a shipped network by its name, or inside a checkpoint."""
    weights = str(_zoo().get(uri, uri))
    inside = files.join(weights, WEIGHTS)
    return inside if files.exists(inside) else weights


def _load(choice: UsedNetwork) -> Restorer:
    if choice.uri.startswith(REGISTERED):
        from flows import registered  # imports MLflow, which takes seconds

        return registered.restorer_of(choice)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network_restorer(load_network(weights_of(choice.uri))[1], device)


def _named(model: str) -> UsedNetwork:
    """Return the one network that a user asked for."""
    if not model.startswith(REGISTERED):
        if model in _zoo():
            return _of_weights(model, f"{model} (shipped)", asked=True)
        if files.exists(model):
            uri = model if "://" in model else str(Path(model).absolute())
            return _of_weights(uri, model, asked=True)
    if not _registry_is_there():
        raise ValueError(
            f"{model}: there is no such file, no shipped network of that name ({_known()}), and no "
            f"registry at {settings().mlflow_uri}"
        )
    from flows import registered  # imports MLflow, which takes seconds

    return registered.named_choice(model, known=_known())


def _registered(*, strict: bool) -> Sequence[UsedNetwork]:
    """Return the registered champions; nothing where no registry is."""
    if not _registry_is_there():
        return []
    from flows import registered  # imports MLflow, which takes seconds

    return registered.champions(strict=strict)


def _registry_is_there() -> bool:
    """Tell whether a registry was set up, without making one."""
    uri = settings().mlflow_uri
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()


def _shipped() -> Sequence[UsedNetwork]:
    """Return the shipped networks; where there are blind ones, only those.

    quickres-blind is better than the shipped networks for QF 10 at that very quality factor: 0.68
    dB of gain on BSDS500 test images, quickres-qf10 0.65.
    """
    found = []
    for name in _zoo():
        try:
            found.append(_of_weights(name, f"{name} (shipped)"))
        except ValueError as error:
            log.warning("%s is not used: %s", name, error)
    return [network for network in found if len(network.qfs) > 1] or found


def _zoo() -> dict[str, Path]:
    """Return the shipped weights by name, those before others that are to be preferred."""
    found = {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}
    return {name: found[name] for name in sorted(found, key=lambda n: (n not in PREFERRED, n))}


def _known() -> str:
    return ", ".join(_zoo()) or "there are none"


def _of_weights(uri: str, name: str, *, asked: bool = False) -> UsedNetwork:
    """Return the network of weights that `weights_of` finds."""
    weights = weights_of(uri)
    origin, _ = load_weights(weights)
    digest = hashlib.sha256(files.read_bytes(weights)).hexdigest()
    return UsedNetwork(name=name, uri=uri, qfs=origin.qfs, sha256=digest, asked=asked)
