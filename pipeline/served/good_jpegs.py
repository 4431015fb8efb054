"""Which JPEGs are good already and left as they are, by commands and registered models alike."""

import io
from functools import cache

import numpy as np
from PIL import Image

GOOD_QF = 89
"""Above this quality factor a photograph is left as it is: some would lose by being restored."""


def estimate_qf(table: np.ndarray) -> tuple[int, bool]:
    """Return the quality factor whose table is nearest, and whether it is exactly that table.

    `table` is (8, 8), rows of rising vertical frequency, values from 1. The distance is the mean of
    |log2 of the ratio| over the 64 steps; of equally near factors the lower one is taken.
    """
    known = _standard_tables()
    qf = int(np.argmin(np.abs(log2_steps(table) - log2_steps(known)).mean((1, 2)))) + 1
    return qf, bool(np.array_equal(table, known[qf - 1]))


def reason_to_leave(qf: int) -> str | None:
    """Say why a JPEG of this quality factor is left as it is; None if it is restored."""
    return f"already good, QF {qf}" if qf > GOOD_QF else None


def log2_steps(table: np.ndarray) -> np.ndarray:
    """Return the steps of quantisation tables in octaves, float64."""
    return np.log2(np.maximum(table, 1), dtype=np.float64)


@cache
def _standard_tables() -> np.ndarray:
    """Return the luma tables of QF 1 to 100 as the encoder writes them, (100, 8, 8)."""
    return np.stack([_table(qf) for qf in range(1, 101)])


def _table(qf: int) -> np.ndarray:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "JPEG", quality=qf)
    with Image.open(file, formats=["JPEG"]) as image:
        return np.array(image.quantization[0], np.uint16).reshape(8, 8)  # type: ignore[attr-defined]
