"""What a report says, as plain data: scores, curves, pictures, and how it was made.

`pipeline.report_page` makes the HTML page of it, `pipeline.report_files` the files that it can be
made from again.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import Literal

from models import build_model
from models.complexity import multiply_adds_per_pixel
from pipeline.qf_transfer import QfTransfer
from pipeline.rate_distortion import RateDistortion
from pipeline.scores import Comparison, EvaluationResult

Layer = Literal["jpeg", "restored", "original"]
Curve = tuple[tuple[int, float], ...]
"""(optimiser steps, value), steps ascending."""

PACKAGES = ("torch", "numpy", "pillow", "pyarrow", "ray", "prefect", "mlflow", "altair")
"""Those whose versions a report names, beside Python's."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs, whatever machine it runs on."""

    parameters: int
    multiply_adds_per_pixel: int


@dataclass(frozen=True, kw_only=True)
class ReportedNetwork:
    """One network of a report."""

    name: str
    """As tables and charts call it; unlike any other of the report."""
    architecture: str | None = None
    """A name in models.ARCHITECTURES; None if it is not known."""
    cost: Cost | None = None
    """None if the architecture is not known."""
    made: Mapping[str, str] = field(default_factory=dict)
    """How it was made, in words: recipe, steps, store version, dataset fingerprint and so on."""
    training_run: str | None = None
    """MLflow's id of the run that holds its loss curve."""
    loss: Curve = ()
    """Training loss."""
    validation_psnr: Curve = ()
    """PSNR of held-out patches, dB."""
    scores: tuple[Comparison, ...] = ()
    """One for each evaluation set."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image before and after a network; its layers are of one size."""

    network: str
    dataset: str
    """With its degradation, unless that is the standard one."""
    image: str
    qf: int
    width: int
    height: int
    cut: bool
    """Whether it is the middle of a larger image."""
    jpeg_scores: Mapping[str, float]
    """Of the whole image, by the names of METRICS; as are `restored_scores`."""
    restored_scores: Mapping[str, float]
    layers: Mapping[Layer, bytes]
    """Lossless WebP files, 8-bit grey."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one page shows; what is empty has no section."""

    title: str
    command: str = ""
    """What the user called."""
    created: str = ""
    """Date and time, for people."""
    networks: tuple[ReportedNetwork, ...] = ()
    jpeg: tuple[EvaluationResult, ...] = ()
    """Scores of JPEG itself, where no network was scored."""
    pictures: tuple[Picture, ...] = ()
    transfers: Mapping[str, QfTransfer] = field(default_factory=dict)
    """Networks of one architecture and one quality factor each, by architecture."""
    rate_distortion: RateDistortion | None = None
    """Over quality factors 10 to 90."""
    made: Mapping[str, str] = field(default_factory=dict)
    """How the report was made: commit, machine, package versions."""
    notes: tuple[str, ...] = ()
    """What the reader should know: what failed, what was left out, and why."""

    def __post_init__(self) -> None:
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise ValueError(f"report {self.title!r}: two networks have one name in {names}")


def cost_of(architecture: str, options: Mapping[str, object] | None = None) -> Cost:
    """Measure what a network costs. Raises ValueError for an unknown architecture."""
    network = build_model(architecture, options)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters=parameters, multiply_adds_per_pixel=multiply_adds_per_pixel(network))


def surroundings() -> dict[str, str]:
    """Return what a report's numbers depend on besides the code: machine and packages."""
    told = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": platform.python_version(),
    }
    return told | {name: found for name in PACKAGES if (found := _version(name)) is not None}


def finite_curve(points: Sequence[tuple[int, float]]) -> Curve:
    """Return the points in the order of their steps, without those of a diverged training."""
    return tuple(sorted(point for point in points if isfinite(point[1])))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
