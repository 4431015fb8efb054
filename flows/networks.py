"""What a user may name as a network to score: `jpeg`, a registered model, or a checkpoint."""

import torch

from flows.settings import settings
from pipeline.tiles import Restorer, network_restorer
from pipeline.training_job import WEIGHTS
from pipeline.weights import load_network
from storage import files
from storage.model_registry import ModelRegistry

JPEG = "jpeg"


def open_network(network: str) -> Restorer | None:
    """Return a function that restores luma with the named network; None for JPEG itself.

    `network` is `jpeg`, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, NAME (the champion), or the
    path or URI of a checkpoint folder or its weights. Raises an error that lists what there is.
    """
    if network == JPEG:
        return None
    if not network.startswith("models:/") and files.exists(network):
        inside = files.join(network, WEIGHTS)
        return restorer_of(inside if files.exists(inside) else network)
    registry = ModelRegistry(settings().mlflow_uri)
    found = registry.resolve(network)
    field, multiple = (found.tags.get(name) for name in ("receptive_field", "multiple"))
    return network_restorer(
        registry.load(found.uri),
        receptive_field=int(field) if field else None,
        multiple=int(multiple) if multiple else None,
    )


def check_network(network: str) -> None:
    """Raise an error that lists what there is, unless there is such a network."""
    if network != JPEG and (network.startswith("models:/") or not files.exists(network)):
        ModelRegistry(settings().mlflow_uri).resolve(network)


def restorer_of(weights: str) -> Restorer:
    """Return a function that restores luma with trained weights, on a GPU if there is one."""
    _, network = load_network(weights)
    return network_restorer(network, "cuda" if torch.cuda.is_available() else "cpu")
