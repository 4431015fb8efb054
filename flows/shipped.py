"""The weights that the repository ships, and how they were scored."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean

from flows.settings import PROJECT
from storage.gate import GateScores

ZOO = PROJECT / "models" / "zoo"
PREFERRED = ("quickres-blind", "quickres-qf10")
"""Of shipped networks of the same quality factors, those that score better on LIVE1."""


def shipped_weights() -> dict[str, Path]:
    """Return the shipped weights by name, those before others that are to be preferred."""
    found = {path.stem: path for path in sorted(ZOO.glob("*.safetensors"))}
    return {name: found[name] for name in sorted(found, key=lambda n: (n not in PREFERRED, n))}


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
def _psnr_by_qf(name: str) -> Mapping[str, Mapping[int, float]]:
    """Return dB by set and quality factor, of what `qfactory evaluate --json` printed of it.

    Kept for the network that is used out of the box; of others nothing is known.
    """
    path = ZOO / f"{name}.json"
    if not path.exists():
        return {}
    found: dict[str, dict[int, float]] = {}
    for row in json.loads(path.read_text()):
        found.setdefault(row["dataset"], {})[row["qf"]] = row["psnr"]
    return found
