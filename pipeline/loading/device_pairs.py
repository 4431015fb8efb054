"""Fresh pairs made on a GPU, where Pillow on its processors could not keep up with the training.

Compression gives libjpeg's own pixels, bit for bit: its integer transforms are products with one
matrix of whole numbers, each rounded once, which float64 holds exactly. Crops are reduced by
Pillow's filter in floating point, where Pillow's is fixed-point: 1 pixel in 10,000 of photographs
is off by one.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from models.layers.block_dct import BLOCK, tile_table

BICUBIC = -0.5  # the parameter of Keys' filter that Pillow takes
SUPPORT = 2  # pixels of the reduced image that the filter reaches on either side
CONSTANT_BITS, EXTRA_BITS = 13, 2  # libjpeg's, below the point: of its constants, between passes
CONSTANTS = {
    "0.298": 0.298631336,
    "0.390": 0.390180644,
    "0.541": 0.541196100,
    "0.765": 0.765366865,
    "0.899": 0.899976223,
    "1.175": 1.175875602,
    "1.501": 1.501321110,
    "1.847": 1.847759065,
    "1.961": 1.961570560,
    "2.053": 2.053119869,
    "2.562": 2.562915447,
    "3.072": 3.072711026,
}


def make_pairs(
    patches: Tensor, corner: Tensor, side: Tensor, tables: Tensor, *, to: int
) -> tuple[Tensor, Tensor]:
    """Return (original, degraded), (N, to, to) uint8 each: crops and what their JPEGs look like.

    Args:
        patches: (N, S, S) uint8 luma.
        corner: (N, 2) int64, top and left of each crop in pixels.
        side: (N,) int64, height and width of each crop in pixels, at least `to`.
        tables: (N, 8, 8) uint8, the quantisation table of each.
        to: height and width that crops are reduced to, a multiple of 8.
    """
    rows, columns = (_reduction(corner[:, axis], side, patches.shape[-1], to) for axis in (0, 1))
    narrowed = _to_levels(patches.float() @ columns.transpose(1, 2))
    original = _to_levels(rows @ narrowed)
    return original.to(torch.uint8), _compress(original, tables).to(torch.uint8)


def _reduction(start: Tensor, size: Tensor, length: int, to: int) -> Tensor:
    """Return what reduces a part of an axis: (N,) starts and sizes -> (N, to, length) weights.

    Pillow's bicubic filter, widened to the scale; a part of size `to` is copied.
    """
    scale = (size / to)[:, None, None]
    centre = (torch.arange(to, device=start.device)[:, None] + 0.5) * scale
    place = torch.arange(length, device=start.device) - start[:, None, None]
    weights = _bicubic((place + 0.5 - centre) / scale)
    weights = weights * ((place >= 0) & (place < size[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _bicubic(x: Tensor) -> Tensor:
    x, a = x.abs(), BICUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < SUPPORT, far, 0.0))


def _compress(pixels: Tensor, tables: Tensor) -> Tensor:
    """Return the pixels that libjpeg decodes after it has encoded: (N, side, side) float32."""
    levels = pixels.double() - 128
    steps = tile_table(tables, levels[:, None])[:, 0]
    waves = _libjpeg_dct(levels.device)
    rows = _shifted(_along_rows(levels, waves), CONSTANT_BITS - EXTRA_BITS)
    scaled = _shifted(_along_columns(rows, waves), CONSTANT_BITS + EXTRA_BITS)  # 8 x coefficients
    quantized = scaled.sign() * ((scaled.abs() + 4 * steps) / (8 * steps)).floor()
    columns = _along_columns(quantized * steps, waves.T)
    columns = _shifted(columns, CONSTANT_BITS - EXTRA_BITS)
    decoded = _shifted(_along_rows(columns, waves.T), CONSTANT_BITS + EXTRA_BITS + 3)
    return (decoded + 128).clamp(0, 255).float()


def _along_rows(x: Tensor, matrix: Tensor) -> Tensor:
    return (x.unflatten(2, (-1, BLOCK)) @ matrix.T).flatten(2)


def _along_columns(x: Tensor, matrix: Tensor) -> Tensor:
    return (matrix @ x.unflatten(1, (-1, BLOCK))).flatten(1, 2)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Divide whole numbers by 2 ** bits, halves rounded up."""
    return (x * 2.0**-bits + 0.5).floor()


@cache
def _libjpeg_dct(device: torch.device) -> Tensor:
    """Return one pass of libjpeg's "slow" integer DCT, (8, 8) float64; the transpose inverts it.

    Row u holds frequency u's weights, 2 ** CONSTANT_BITS * sqrt(8) times the orthonormal ones.
    They come out of the 12 rounded constants of the factorisation of Loeffler et al. (1989), whose
    sums are not always the nearest whole numbers to the cosines.
    """
    c = {key: round(value * 2**CONSTANT_BITS) for key, value in CONSTANTS.items()}
    sums, differences = np.eye(BLOCK)[:4], np.eye(BLOCK)[:4]
    mirrored = np.eye(BLOCK)[:3:-1]
    sums, differences = sums + mirrored, differences - mirrored
    outer, inner = sums[0] - sums[3], sums[1] - sums[2]
    crossed = (outer + inner) * c["0.541"]
    seventh, fifth, third, first = differences[::-1]  # what mostly makes each odd frequency
    z1, z2 = (seventh + first) * -c["0.899"], (fifth + third) * -c["2.562"]
    z5 = (seventh + third + fifth + first) * c["1.175"]
    z3 = z5 - (seventh + third) * c["1.961"]
    z4 = z5 - (fifth + first) * c["0.390"]
    rows = np.stack(
        [
            sums.sum(0) * 2**CONSTANT_BITS,
            first * c["1.501"] + z1 + z4,
            crossed + outer * c["0.765"],
            third * c["3.072"] + z2 + z3,
            (sums[0] + sums[3] - sums[1] - sums[2]) * 2**CONSTANT_BITS,
            fifth * c["2.053"] + z2 + z4,
            crossed - inner * c["1.847"],
            seventh * c["0.298"] + z1 + z3,
        ]
    )
    return torch.from_numpy(rows).to(device)


def _to_levels(x: Tensor) -> Tensor:
    return (x + 0.5).floor().clamp(0, 255)
