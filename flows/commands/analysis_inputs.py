"""What the analyses of trained networks share: networks, images, folders, tables as files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from flows.console import shown
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import open_network
from flows.reporting.score_tables import label_of
from flows.settings import settings
from pipeline.evaluation.protocol import NamedImage
from pipeline.networks.restorer import Restorer

Output = Annotated[str | None, Parameter(name=("--output", "-o"))]
ImageCount = Annotated[int, Field(ge=1)] | None


@dataclass(frozen=True, kw_only=True)
class NamedNetwork:
    """A network to analyse."""

    name: str
    """A short one, for tables and charts; no two have the same."""
    restorer: Restorer
    qfs: tuple[int, ...]
    """JPEG quality factors that it was trained for; none where that is not known."""


def open_networks(networks: Sequence[str]) -> list[NamedNetwork]:
    """Open checkpoints and registered models; see flows.planning.named_networks.open_network.

    Of two with one short name, both are called as the user did. Raises ValueError for none, for
    one that is named twice, and for `jpeg`, which every analysis measures anyway.
    """
    if not networks or len(set(networks)) < len(networks):
        raise ValueError(f"networks {list(networks)}: name one or more, each once")
    opened = [open_network(network) for network in networks]
    labels = [one.label for one in opened]
    found = []
    for network, one in zip(networks, opened, strict=True):
        if one.restorer is None:
            raise ValueError("jpeg is measured anyway: name checkpoints or registered models")
        name = one.label if labels.count(one.label) == 1 else network
        found.append(NamedNetwork(name=name, restorer=one.restorer, qfs=one.qfs))
    return found


@contextmanager
def shown_images(dataset: str, count: int | None, title: str) -> Iterator[Iterator[NamedImage]]:
    """Give a dataset's images, or the first `count` of them, and show how far they are."""
    with shown(f"{title} on {dataset}") as update:
        yield images_of(dataset, update, first=count)


def folder_of(output: str | None, analysis: str, dataset: str) -> str:
    """Return the folder or URI of an analysis's files: the user's, or one below the reports."""
    return output or str(settings().reports / analysis / label_of(dataset))
