"""What a test run took, by folder, beside the budget of each: growth is seen where it begins."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

BUDGET = Path(__file__).with_name("budget.json")
"""Folder of tests -> seconds that its tests may take on two cores, all processes summed."""


def seconds_by_folder(durations: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Sum seconds by the folder of the test; `durations` are pairs of a test's id and seconds."""
    spent: dict[str, float] = defaultdict(float)
    for node, seconds in durations:
        spent[PurePosixPath(node.partition("::")[0]).parent.as_posix()] += seconds
    return dict(sorted(spent.items()))


def lines(spent: dict[str, float], budget: dict[str, float]) -> Iterator[str]:
    """Yield a line a folder, the dearest first; those above their budget say so."""
    for folder, seconds in sorted(spent.items(), key=lambda one: -one[1]):
        allowed = budget.get(folder)
        over = "" if allowed is None or seconds <= allowed else f"  OVER its budget of {allowed} s"
        yield f"{seconds:8.1f} s  {folder}{over}"


def read_budget() -> dict[str, float]:
    """Return the budget of each folder."""
    return json.loads(BUDGET.read_text())
