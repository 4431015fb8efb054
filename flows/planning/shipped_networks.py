"""The weights that the repository ships: which files they are, and how they were scored."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from flows.settings import PROJECT, settings
from pipeline.networks.weights import weights_in
from storage import files
from storage.registry.gate import GateScores

ZOO = PROJECT / "models" / "zoo"
PREFERRED = ("unet-blind", "unet-small-blind", "unet-tiny-blind")
"""The shipped networks that come before the others, the best first."""
RECORD = ZOO / "precision.json"
"""Name -> SHA-256 of a shipped file, and the most PSNR in dB that its network loses by bfloat16 on
LIVE1, at one of its quality factors that photographs are restored at (GOOD_QF of
pipeline/served/good_jpegs.py and below). Made by tests/benchmarks/precision.py."""


TRAININGS = ZOO / "trainings.json"
"""Name -> how a shipped network was trained."""

T = TypeVar("T")


def shipped_weights() -> dict[str, Path]:
    """Return the shipped weights by name, those before others that are to be preferred."""
    found = {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}
    preferred = [name for name in PREFERRED if name in found]
    return {name: found[name] for name in dict.fromkeys((*preferred, *found))}


def weights_of(uri: str) -> str:
    """Return the file of weights: of a shipped network by its name, or inside a checkpoint."""
    return weights_in(str(shipped_weights().get(uri, uri)))


def shipped_names() -> str:
    """Return the shipped networks' names for people."""
    return ", ".join(shipped_weights()) or "there are none"


def check_registry(network: str) -> None:
    """Raise ValueError if there is no registry to look up a name in that is nothing else."""
    if not settings().has_mlflow:
        raise ValueError(
            f"{network}: there is no such file, no shipped network of that name "
            f"({shipped_names()}), and no registry at {settings().mlflow_uri}"
        )


def digest_of(weights: str) -> str:
    """Return the SHA-256 of a file of weights. Raises ValueError for a shipped one that changed."""
    digest = files.sha256_of(weights)
    name = Path(weights).stem
    recorded = _record().get(name, {}).get("sha256", digest)
    if digest != recorded and Path(weights).resolve() == shipped_weights().get(name):
        raise ValueError(
            f"{weights} is not the file that is shipped: its SHA-256 is {digest[:12]}..., recorded "
            f"is {recorded[:12]}...; do not use it, and bring back the file (git restore, or "
            "install again)"
        )
    return digest


def shipped_loss_db(sha256: str) -> float | None:
    """Return the PSNR that shipped weights lose by bfloat16; None for a file that is none."""
    found = (one["bfloat16_loss_db"] for one in _record().values() if one["sha256"] == sha256)
    return next(found, None)


def recorded_rows(name: str) -> Sequence[Mapping]:
    """Return the rows that `qfactory evaluate NAME --json` printed of a shipped network."""
    return _read(ZOO / f"{name}.json", [])


def training_of(name: str) -> Mapping[str, object]:
    """Return how a shipped network was trained: steps, minutes, data, processor."""
    return _read(TRAININGS, {})[name]


def better_shipped(scores: GateScores) -> tuple[str, float] | None:
    """Return a shipped network with more PSNR on the same set and quality factors, and its PSNR.

    None where there is none, or none was scored there.
    """
    found = [
        (name, fmean(by_qf[qf] for qf in scores.qfs))
        for name in shipped_weights()
        if set(scores.qfs) <= set(by_qf := _psnr_by_qf(name).get(scores.dataset, {}))
    ]
    best = max(found, key=lambda one: one[1], default=None)
    return best if best is not None and best[1] > scores.psnr else None


@cache
def _record() -> Mapping[str, Mapping]:
    return _read(RECORD, {})


def _read(path: Path, without: T) -> T:
    """Return what a JSON file holds, or `without` where there is none."""
    return json.loads(path.read_text()) if path.exists() else without


@cache
def _psnr_by_qf(name: str) -> Mapping[str, Mapping[int, float]]:
    """Return the recorded dB by set and quality factor."""
    found: dict[str, dict[int, float]] = {}
    for row in recorded_rows(name):
        found.setdefault(row["dataset"], {})[row["qf"]] = row["psnr"]
    return found
