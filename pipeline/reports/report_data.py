"""What a report says, as plain data, and the files that it can be made from again.

Scores, curves, pictures, and how it was made; `pipeline.reports.html` makes the HTML page of it.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from models import build_model
from models.measuring.complexity import multiply_adds_per_pixel
from pipeline.evaluation.cross_quality import QfTransfer
from pipeline.evaluation.rate_distortion import RateDistortion
from pipeline.evaluation.scores import Comparison, EvaluationResult

Layer = Literal["jpeg", "restored", "original"]
Curve = tuple[tuple[int, float], ...]
"""(optimiser steps, value), steps ascending."""

CONTENT = "report.json"
"""The file of all but the pictures."""
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
    """PSNR on the validation set or on patches held out, dB."""
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
    analysed: str = ""
    """What was done to the images of the curves and matrices before, in words."""
    made: Mapping[str, str] = field(default_factory=dict)
    """How the report was made: commit, machine, package versions."""
    notes: tuple[str, ...] = ()
    """What the reader should know: what failed, what was left out, and why."""

    def __post_init__(self) -> None:
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise ValueError(f"report {self.title!r}: two networks have one name in {names}")


class ReportError(ValueError):
    """A report's files are missing or damaged; the message says what to do."""


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


def to_files(report: Report) -> dict[str, bytes]:
    """Return the files by path: CONTENT, and `pictures/<number>-<layer>.webp`."""
    bare = replace(report, pictures=tuple(replace(p, layers={}) for p in report.pictures))
    files = {CONTENT: json.dumps(asdict(bare), indent=1).encode()}
    for number, picture in enumerate(report.pictures):
        files |= {_path(number, layer): content for layer, content in picture.layers.items()}
    return files


def from_files(read: Callable[[str], bytes]) -> Report:
    """Return the report that `to_files` was given.

    `read` returns a file's content by its path. Raises ReportError for a damaged or foreign
    CONTENT, and what `read` raises.
    """
    try:
        bare = TypeAdapter(Report).validate_json(read(CONTENT))
    except ValidationError as error:
        raise ReportError(
            f"{CONTENT} is damaged or of another version of qfactory ({error.error_count()} "
            "errors): run the study or the evaluation again"
        ) from error
    pictures = [_filled(number, picture, read) for number, picture in enumerate(bare.pictures)]
    return replace(bare, pictures=tuple(pictures))


def _filled(number: int, picture: Picture, read: Callable[[str], bytes]) -> Picture:
    layers: tuple[Layer, ...] = get_args(Layer)
    return replace(picture, layers={layer: read(_path(number, layer)) for layer in layers})


def _path(number: int, layer: Layer) -> str:
    return f"pictures/{number + 1}-{layer}.webp"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
