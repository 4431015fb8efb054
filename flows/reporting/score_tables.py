"""Scores as the rows of a table for people, with the papers' own results beside ours."""

import re
from collections.abc import Mapping, Sequence

from pipeline.evaluation import published
from pipeline.evaluation.scores import Comparison, EvaluationResult, MeanScore
from pipeline.images.metrics import METRICS

Row = dict[str, str | float]
JPEG_ROW = "JPEG"
SPARE = ("seconds_per_mpx", "bpp", "ssim_gaussian")
"""Columns that a narrow terminal does without."""
COST_DIGITS = 4
"""Behind the point of bits a pixel and seconds a megapixel."""


def score_rows(name: str, comparison: Comparison, architecture: str | None = None) -> list[Row]:
    """Return the rows that people compare, a quality factor after another.

    JPEG, the network and the gain; then, where papers print results of the architecture on the
    set, each such row and ours less it.
    """
    rows: list[Row] = []
    for row in comparison.restored.rows:
        before = comparison.jpeg.row(row.qf)
        gains = {metric: comparison.gain(row.qf, metric) for metric in row.metrics}
        lines = [(JPEG_ROW, before.metrics), (name, row.metrics), ("gain", gains)]
        rows += _rows(row, [*lines, *_published(architecture, row)])
    return rows


def result_rows(
    name: str,
    result: EvaluationResult,
    architecture: str | None,
    before: EvaluationResult | None = None,
) -> list[Row]:
    """Return the means of an evaluation with their costs, each above the published rows.

    `before` is that of JPEG itself, which then stands above a network's.

    Columns: `set, qf`, one without a heading for whose row it is, the metrics, `bpp` and
    `seconds_per_mpx` (empty in published rows).
    """
    rows: list[Row] = []
    for row in result.rows:
        costs = {"bpp": row.bpp, "seconds_per_mpx": row.seconds_per_mpx}
        beside = _published(architecture, row)
        lines: list[tuple[str, Mapping[str, float | str]]] = [
            (label, {**values, **dict.fromkeys(costs, "")}) for label, values in beside
        ]
        lines.insert(0, (f"{name}, {row.told_images}", {**row.metrics, **costs}))
        if before is not None:
            of_jpeg = {**before.row(row.qf).metrics, "bpp": row.bpp, "seconds_per_mpx": ""}
            lines.insert(0, (JPEG_ROW, of_jpeg))
        rows += _rows(row, lines)
    return rows


def label_of(text: str) -> str:
    """Return the label of a set or of a published row as a part of metric and file names."""
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def _published(
    architecture: str | None, ours: MeanScore
) -> list[tuple[str, dict[str, float | str]]]:
    """Return label and values of each published row and of its differences, in turn.

    A metric that is not comparable is an empty text.
    """
    return [
        (label, {name: values.get(name, "") for name in METRICS})
        for row, difference in published.beside(architecture, ours)
        for label, values in ((row.label, row.metrics), ("difference", difference))
    ]


def _rows(
    row: MeanScore, lines: Sequence[tuple[str, Mapping[str, float] | Mapping[str, float | str]]]
) -> list[Row]:
    return [{"set": row.label, "qf": row.qf, "": who, **_rounded(values)} for who, values in lines]


def _rounded(values: Mapping[str, float | str]) -> Row:
    digits = {name: METRICS[name].digits if name in METRICS else COST_DIGITS for name in values}
    return {
        name: value if isinstance(value, str) else round(value, digits[name]) + 0.0  # no -0.0
        for name, value in values.items()
    }
