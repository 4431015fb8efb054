"""A registered program and what is known of it: restores arrays and JPEG photographs."""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .facts import ProgramFacts
from .good_jpegs import estimate_qf, reason_to_leave
from .header import PhotographRejected
from .photographs import (
    BLANK,
    MAX_PIXELS,
    MIN_SIDE,
    left_out,
    padded,
    png_of,
    read_photograph,
)
from .precision import Precision, PrecisionChoice, autocast, checked, inference_precision
from .quantization_cells import within_cells
from .tiles import TILE, Tiling, run, to_luma, to_unit

MAX_PIXELS_AT_ONCE = 2_000_000
"""The cap for networks that see the whole image at once: their memory grows with it."""

DAMAGED_ASKED = 'params={"damaged": "restore"}'
"""What a caller gives to have what is left of a damaged photograph restored."""

Program = Callable[..., Tensor]
"""Takes (N, 1, H, W) float32 in [0, 1] and, if it needs them, tables (N, 8, 8) float32; returns the
shape of the first, clipped to [0, 1]."""

CPU = torch.device("cpu")
"""Where programs were exported, and compute."""

logger = logging.getLogger(__name__)


class ServedNetwork:
    """Restores with a program. It keeps no state: threads may share it."""

    def __init__(
        self, program: Program, facts: ProgramFacts, precision: PrecisionChoice = "auto"
    ) -> None:
        """Restore in `precision`. Raises ValueError for one that the processor lacks."""
        self._program = program
        self._facts = facts
        self.precision: Precision = inference_precision(precision, CPU, facts.bfloat16_loss_db)
        self._tiling = None
        if (field := facts.receptive_field) is not None:
            self._tiling = Tiling(side=TILE, receptive_field=field, multiple=facts.multiple)
        self.max_pixels = MAX_PIXELS if self._tiling else MAX_PIXELS_AT_ONCE

    def computing_in(self, precision: PrecisionChoice) -> "ServedNetwork":
        """Return the same network in a precision; `auto` is bfloat16 where little is lost by it."""
        return ServedNetwork(self._program, self._facts, precision)

    def photograph(self, data: bytes, *, damaged: bool = False) -> bytes:
        """Return the PNG of a JPEG with its luma restored; colour and metadata stay.

        One that is good already is left as it is, with a warning in the log that says so; of the
        others no coefficient moves farther than `within_cells` lets it, as in `qfactory restore`.
        Raises PhotographRejected, a ValueError, with the reason for what cannot be restored, and
        for a file that is truncated or damaged unless `damaged` says to restore what there is.
        """
        photograph = read_photograph(data, max_pixels=self.max_pixels)
        if not photograph.whole and not damaged:
            raise PhotographRejected(f"{BLANK}; {DAMAGED_ASKED} restores the rest")
        for note in (*photograph.notes, *left_out(photograph, "png")):
            logger.warning(note)
        qf, _ = estimate_qf(photograph.table)
        if (reason := reason_to_leave(qf)) is not None:
            logger.warning("left as it is: %s", reason)
            return png_of(photograph, photograph.luma)
        restored = self.luma(photograph.luma, photograph.table)
        return png_of(photograph, within_cells(photograph.luma, restored, photograph.table))

    def luma(self, luma: np.ndarray, table: np.ndarray | None = None) -> np.ndarray:
        """Restore (H, W) uint8, any H and W, to the same; `table` is the JPEG's, (8, 8)."""
        self._check_pixels(luma)
        height, width = luma.shape
        restored = self._restored(to_unit(padded(luma)), self._tables(table, 1))
        return to_luma(restored)[:height, :width]

    def images(self, images: np.ndarray, table: np.ndarray | None = None) -> np.ndarray:
        """Restore (N, 1, H, W) float32 in [0, 1], H and W from 8, to the same.

        `table` is (8, 8), or (N, 8, 8) with one an image.
        """
        self._check_pixels(images)
        count, _, height, width = images.shape
        if count < 1 or min(height, width) < MIN_SIDE:
            raise ValueError(f"images of shape {images.shape}: give 1 or more, 8x8 pixels or more")
        tables = self._tables(table, count)
        together = max(1, TILE * TILE // (height * width))
        x = torch.from_numpy(np.ascontiguousarray(images))
        parts = [slice(start, start + together) for start in range(0, count, together)]
        return torch.cat(
            [self._restored(x[part], tuple(given[part] for given in tables)) for part in parts]
        ).numpy()

    def _restored(self, x: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        with torch.inference_mode(), autocast(self.precision, CPU):
            return checked(
                lambda: run(lambda part: self._program(part, *tables), x, self._tiling),
                self.precision,
                "the network",
            )

    def _tables(self, table: np.ndarray | None, count: int) -> tuple[Tensor, ...]:
        """Return what the program takes behind the images: (count, 8, 8) tables, or nothing."""
        if not self._facts.needs_table:
            return ()
        given = self._facts.default_table if table is None else table
        if given is None:
            raise ValueError(
                "this network needs the quantisation table of the JPEG that the pixels come from: "
                'give {"image": array, "table": (8, 8) array}, or the JPEG itself'
            )
        values = np.asarray(given)
        fits = values.shape in ((8, 8), (count, 8, 8)) and values.dtype.kind in "fiu"
        if not fits or not ((values >= 1) & (values <= 255)).all():
            raise ValueError(f"table of shape {values.shape}: give (8, 8), values 1 to 255")
        steps = torch.from_numpy(values.astype(np.float32))
        return (steps.expand(count, 8, 8).contiguous(),)

    def _check_pixels(self, images: np.ndarray) -> None:
        if images.size > self.max_pixels:
            raise ValueError(
                f"too large: {images.shape} has more than {self.max_pixels:,} pixels; give less "
                "at once"
            )
