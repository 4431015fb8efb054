"""What a user may name as a network to score: `jpeg`, a registered model, or a checkpoint."""

from dataclasses import dataclass

import torch

from flows.planning.shipped_networks import (
    check_registry,
    digest_of,
    shipped_loss_db,
    shipped_weights,
    weights_of,
)
from flows.settings import settings
from models import ARCHITECTURES
from pipeline.evaluation.published import JPEG
from pipeline.networks.devices import Precision, PrecisionChoice, best_device, inference_precision
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import Origin, load_network
from pipeline.served.facts import facts_in
from storage import files
from storage.registry.model_registry import ModelRegistry, RegisteredVersion

PREFIX = "qfactory-"
"""Names of registered models begin with this, then the architecture."""


@dataclass(frozen=True, kw_only=True)
class OpenNetwork:
    """A network that is ready to restore, and what is known of it."""

    restorer: Restorer | None
    """None for JPEG itself."""
    architecture: str | None
    """A name in models.ARCHITECTURES, or `jpeg`; None where a registered model does not say."""
    label: str
    """A short name for tables, with the precision unless that is float32."""
    qfs: tuple[int, ...] = ()
    """JPEG quality factors that it was trained for; none where that is not known."""
    made_by: RegisteredVersion | Origin | None = None
    """What the registry or the file of weights tells of it; None for JPEG itself."""
    precision: Precision = "float32"
    """What it computes in."""


def open_network(network: str, precision: PrecisionChoice = "float32") -> OpenNetwork:
    """Open the named network, on a GPU if there is one and it is a checkpoint.

    `network` is `jpeg`, a shipped network's name, `models:/NAME@ALIAS`, `models:/NAME/VERSION`,
    NAME (the champion), or the path or URI of a checkpoint folder or its weights. Raises an error
    that lists what there is, and ValueError for a precision that the device does not compute in.
    """
    if network == JPEG:
        return OpenNetwork(restorer=None, architecture=JPEG, label="JPEG")
    ships = network in shipped_weights()
    if ships or (not network.startswith("models:/") and files.exists(network)):
        weights, device = weights_of(network), best_device()
        origin, module = load_network(weights)
        chosen = inference_precision(precision, device, shipped_loss_db(digest_of(weights)))
        return OpenNetwork(
            restorer=network_restorer(module, device, precision=chosen),
            architecture=origin.architecture,
            label=_label(network if ships else origin.recipe, chosen),
            qfs=origin.qfs,
            made_by=origin,
            precision=chosen,
        )
    check_registry(network)
    registry = ModelRegistry(settings().mlflow_uri)
    found = registry.resolve(network)
    facts = facts_in(found.tags)
    chosen = inference_precision(precision, torch.device("cpu"), facts.bfloat16_loss_db)
    return OpenNetwork(
        restorer=network_restorer(registry.load(found.uri), precision=chosen, facts=facts),
        architecture=registered_architecture(found),
        label=_label(found.tags.get("recipe", found.name.removeprefix(PREFIX)), chosen),
        qfs=found.qfs,
        made_by=found,
        precision=chosen,
    )


def restorer_of(weights: str) -> Restorer:
    """Return a function that restores luma with trained weights, on a GPU if there is one."""
    _, network = load_network(weights)
    return network_restorer(network, best_device())


def registered_architecture(found: RegisteredVersion) -> str | None:
    """Return the architecture by a version's tag, else by its model's name, else None."""
    if tagged := found.tags.get("architecture"):
        return tagged
    if not found.name.startswith(PREFIX):
        return None
    name = found.name.removeprefix(PREFIX)
    fitting = [known for known in ARCHITECTURES if name.startswith(f"{known}-")]
    return max(fitting, key=len, default=None)


def _label(name: str, precision: Precision) -> str:
    return name if precision == "float32" else f"{name} ({precision})"
