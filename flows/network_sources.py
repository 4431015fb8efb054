"""Networks to restore photographs with, as files that travel to the workers of a cluster."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from flows.restoring import ZOO, available_networks
from flows.settings import settings
from pipeline.batch_file import NetworkSource
from pipeline.restore import Network
from pipeline.training_job import WEIGHTS
from storage import files
from storage.model_files import PROGRAM
from storage.model_registry import ModelRegistry

REGISTERED = "models:/"
ALIAS = " (@"
SHIPPED = " (shipped)"


def network_sources(model: str | None) -> tuple[NetworkSource, ...]:
    """Return the files of the networks that `available_networks(model)` names, in its order.

    A registered program's digests are verified, and one with a pickle inside is refused.
    """
    return tuple(_source(network) for network in available_networks(model))


def used_networks(sources: Sequence[NetworkSource]) -> str:
    """Return the networks' names for people."""
    return ", ".join(source.name for source in sources)


def _source(network: Network) -> NetworkSource:
    """Find a network's file by its name, which tells where it comes from."""
    if network.name.startswith(REGISTERED):
        return _registered(network, network.name.partition(ALIAS)[0])
    weights = network.name
    if weights.endswith(SHIPPED):
        weights = str(ZOO / f"{weights.removesuffix(SHIPPED)}.safetensors")
    inside = files.join(weights, WEIGHTS)
    if files.exists(inside):
        weights = inside
    return NetworkSource(
        name=network.name,
        qfs=network.qfs,
        file="weights.safetensors",
        content=files.read_bytes(weights),
        asked=network.asked,
    )


def _registered(network: Network, uri: str) -> NetworkSource:
    registry = ModelRegistry(settings().mlflow_uri)
    registry.load(uri)  # refuses pickles; the files downloaded below have the same digests
    tags = registry.resolve(uri).tags
    with tempfile.TemporaryDirectory() as scratch:
        content = (registry.download(uri, Path(scratch)) / PROGRAM).read_bytes()
    field, multiple = tags.get("receptive_field"), tags.get("multiple")
    return NetworkSource(
        name=network.name,
        qfs=network.qfs,
        file="program.pt2",
        content=content,
        asked=network.asked,
        receptive_field=int(field) if field else None,
        multiple=int(multiple) if multiple else None,
        takes_table=tags.get("needs_table") == str(True),
    )
