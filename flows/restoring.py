"""The networks that photographs can be restored with: registered champions and those that ship."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from flows.settings import PROJECT, settings
from pipeline.restore import Network, when_used
from pipeline.tiles import Restorer, network_restorer
from pipeline.training_job import WEIGHTS
from pipeline.weights import load_network, load_weights
from storage import files

ZOO = PROJECT / "models" / "zoo"
PREFERRED = ("quickres-blind", "quickres-qf10")
"""Of shipped networks of the same quality factors, those that score better on LIVE1."""
SQLITE = "sqlite:///"

log = logging.getLogger(__name__)


def available_networks(model: str | None = None) -> Sequence[Network]:
    """Return the networks to choose from, those before others that are to be preferred.

    Without `model` these are the champions of all registered models, then the shipped weights. A
    registry is asked only if there is one; if it cannot be reached, a warning says so. `model` is
    `models:/NAME@ALIAS`, `models:/NAME/VERSION`, NAME (its champion), a shipped network's name, or
    the path or URI of weights; then this network is the only one. A network is loaded when it is
    first used. Raises an error that lists what there is, unless there is something.
    """
    if model is not None:
        return [_named(model)]
    found = [*_registered(), *_shipped()]
    if not found:
        raise ValueError(
            f"no network to restore with: {ZOO} holds no weights and the registry no champion; "
            "`make demo` trains one in two minutes, `qfactory study` better ones"
        )
    return found


def _named(model: str) -> Network:
    """Return the one network that a user asked for."""
    if not model.startswith("models:/"):
        weights = _zoo().get(model)
        if weights is not None:
            return _from_weights(str(weights), f"{model} (shipped)", asked=True)
        if files.exists(model):
            return _from_weights(model, model, asked=True)
    if not _registry_is_there():
        raise ValueError(
            f"{model}: there is no such file, no shipped network of that name ({_known()}), and no "
            f"registry at {settings().mlflow_uri}"
        )
    from flows import registered  # imports MLflow, which takes seconds

    return registered.named_network(model, known=_known())


def _registered() -> Sequence[Network]:
    """Return the registered champions; nothing where no registry is or none answers."""
    if not _registry_is_there():
        return []
    from flows import registered  # imports MLflow, which takes seconds

    return registered.champions()


def _registry_is_there() -> bool:
    """Tell whether a registry was set up, without making one."""
    uri = settings().mlflow_uri
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).exists()


def _shipped() -> Sequence[Network]:
    """Return the shipped networks; where there are blind ones, only those.

    quickres-blind is better than the shipped networks for QF 10 at that very quality factor: 0.68
    dB of gain on BSDS500 test images, quickres-qf10 0.65.
    """
    found = []
    for name, path in _zoo().items():
        try:
            found.append(_from_weights(str(path), f"{name} (shipped)"))
        except ValueError as error:
            log.warning("%s is not used: %s", name, error)
    return [network for network in found if len(network.qfs) > 1] or found


def _zoo() -> dict[str, Path]:
    """Return the shipped weights by name, those before others that are to be preferred."""
    found = {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}
    return {name: found[name] for name in sorted(found, key=lambda n: (n not in PREFERRED, n))}


def _known() -> str:
    return ", ".join(_zoo()) or "there are none"


def _from_weights(uri: str, name: str, *, asked: bool = False) -> Network:
    """Return the network of a weights file, or of the checkpoint folder that holds one."""
    inside = files.join(uri, WEIGHTS)
    weights = inside if files.exists(inside) else uri
    origin, _ = load_weights(weights)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load() -> Restorer:
        return network_restorer(load_network(weights)[1], device)

    return Network(name=name, qfs=origin.qfs, restorer=when_used(load), asked=asked)
