"""What the DCT-domain networks share: block DCT, its inverse, and the bounds that a JPEG sets.

Shapes: N images, H x W pixels, multiples of 8. A coefficient map holds the coefficients in place of
the pixels: element (8i + u, 8j + v) is coefficient (u, v) of block (i, j), u being the vertical
frequency. Pixels are levels, 255 x - 128 for x in [0, 1], as the JPEG standard shifts them (ITU-T
T.81, A.3.1); the transform is orthonormal (A.3.3), so that coefficients are at most 1024 from 0.

A float32 holds such a coefficient to 1e-4, but a bfloat16 only to 4 and a TF32 product to 0.5. The
transforms therefore compute in float64, which neither autocast nor TF32 touches, and give float32.
"""

import math

import torch
from torch import Tensor

BLOCK = 8


def dct_matrix(device: torch.device) -> Tensor:
    """Return the orthonormal 8x8 DCT of flattened blocks, (64, 64) float64.

    Row 8u + v holds coefficient (u, v)'s weights of the pixels, column 8y + x those of pixel
    (y, x); its transpose is the inverse.
    """
    waves = axis_matrix(BLOCK, device)
    return torch.kron(waves, waves)


def axis_matrix(length: int, device: torch.device) -> Tensor:
    """Return the DCT along one axis of `length` pixels, block by block, (length, length) float64.

    It is orthonormal and zero outside the 8x8 blocks on its diagonal: row 8i + u holds the weights
    of block i's pixels in its frequency u. A product with it costs more than one with blocks that
    were cut out, and little beside a convolution; and it exports for every length, as no dimension
    is split.
    """
    index = torch.arange(length, device=device)
    place, frequency = index % BLOCK, (index % BLOCK)[:, None]
    angle = ((2 * place + 1) * frequency).double() * (math.pi / 16)
    waves = torch.cos(angle) / 2
    waves = torch.where(frequency == 0, waves / math.sqrt(2), waves)
    return torch.where(index // BLOCK == (index // BLOCK)[:, None], waves, 0.0)


def to_levels(x: Tensor) -> Tensor:
    """Turn pixels in [0, 1] into levels in [-128, 127], float32 or, from float64, float64."""
    return _at_least_float32(x) * 255 - 128


def from_levels(levels: Tensor) -> Tensor:
    """Turn levels in [-128, 127] into pixels in [0, 1]; the type stays."""
    return (levels + 128) / 255


def block_dct(levels: Tensor) -> Tensor:
    """Return the coefficient map of every 8x8 block: (N, 1, H, W) -> (N, 1, H, W).

    Float32 whatever the input and autocast are, float64 from float64.
    """
    rows, columns = _axis_matrices(levels)
    return _product(rows, levels, columns.T)


def block_idct(coefficients: Tensor) -> Tensor:
    """Return the levels of a coefficient map, shapes and types as `block_dct`, the inverse."""
    rows, columns = _axis_matrices(coefficients)
    return _product(rows.T, coefficients, columns)


def tile_table(table: Tensor, like: Tensor) -> Tensor:
    """Lay quantisation tables over coefficient maps: (N, 8, 8) -> (N, 1, H, W), type as `like`.

    `table` has rows of rising vertical frequency and values of 1 to 255.
    """
    rows, columns = like.shape[-2] // BLOCK, like.shape[-1] // BLOCK
    return table.to(like.dtype).repeat(1, rows, columns)[:, None]


def by_frequency(table: Tensor) -> Tensor:
    """Return quantisation tables as one channel a frequency: (N, 8, 8) -> (N, 64, 1, 1)."""
    return table.flatten(1)[:, :, None, None]


def rectify(coefficients: Tensor, decoded: Tensor, table: Tensor) -> Tensor:
    """Clamp to what the JPEG allows: `decoded` - Q / 2 to `decoded` + Q / 2 (DCT rectify unit).

    `coefficients` and `decoded` are maps of (N, 1, H, W), restored and of the decoded image;
    `table` is (N, 8, 8), one an image. The bounds of Zhang et al. (2018), DMCNN: the encoder
    rounded every coefficient to a multiple of Q, so that the original's is at most Q / 2 from it.
    What is known here is the decoded image, and its coefficients stray from these multiples, so
    that the original's may lie beyond the bounds:

    - by up to `rounding_allowance`, at most 4, since decoded pixels are rounded to integers;
    - by more in blocks that hold pixels of 0 or 255, where the decoder clipped, and in
      the incomplete blocks at the right and bottom of sides that are no multiples of 8.
    """
    half = tile_table(table, decoded) / 2
    return torch.clamp(coefficients, decoded - half, decoded + half)


def rounding_allowance(device: torch.device) -> Tensor:
    """Return how far rounding pixels to integers can move each coefficient, (8, 8) float64.

    A pixel moves by 1/2 at most, so coefficient (u, v) by half the sum of its weights' absolute
    values: 4 for (0, 0), and never more, as 64 squared weights sum to 1 (Cauchy-Schwarz).
    """
    return dct_matrix(device).abs().sum(1).reshape(BLOCK, BLOCK) / 2


def _axis_matrices(maps: Tensor) -> tuple[Tensor, Tensor]:
    height, width = maps.shape[-2:]
    return axis_matrix(height, maps.device), axis_matrix(width, maps.device)


def _product(left: Tensor, maps: Tensor, right: Tensor) -> Tensor:
    """Multiply (H, H), every map of (N, 1, H, W), and (W, W); `@` would not export for any size."""
    batch = maps.shape[0]
    along_rows = torch.bmm(maps.squeeze(1).double(), right.expand(batch, -1, -1))
    product = torch.bmm(left.expand(batch, -1, -1), along_rows)
    return product.unsqueeze(1).to(_at_least_float32(maps).dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
