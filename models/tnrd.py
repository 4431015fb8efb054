"""TNRD: Chen & Pock, "Trainable Nonlinear Reaction Diffusion" (2017, arXiv 1508.02848).

Shapes: N images, H x W pixels. K filters of S x S, K = S^2 - 1; R radial basis functions a filter.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_RANGE = 255.0
SPACING = 10.0
"""Distance of the Gaussians' centres and their standard deviation, on the 0 to 255 pixel scale."""
BEYOND = 5
"""The influence functions are tabulated so many spacings beyond the outermost centre, to zero."""
STEPS = 64
"""Table entries a spacing: interpolation is off by 1 / (8 * STEPS^2) of a weight, 3e-5, at most."""


class TNRD(nn.Module):
    """A few steps of a diffusion, each with filters and influence functions of its own.

    u_t = P(u_(t-1) - sum_i rot(k_i) * phi_i(k_i * u_(t-1))), u_0 = f the input, rot a turn by 180
    degrees, P the proximal map of the reaction term (sections 2 and 3). Input (N, 1, H, W) float
    in [0, 1], H and W at least 8; output the same shape, unclipped. 5 stages of 48 filters 7x7
    with 63 Gaussians: 26,645 parameters.

    A filter is a combination, of norm 1, of the DCT's basis functions without the constant one; it
    starts as one of them. Chosen here: P(u) = (u + lambda f) / (1 + lambda), that of a quadratic
    distance to f, stands in for the paper's projection on the JPEG's quantisation intervals: the
    published size counts a lambda a stage, and no table is needed; lambda starts at 0.1; borders
    are repeated; influence functions start as z / (490 (1 + (z / 10)^2)), a tenth of the step that
    would take all weak texture away.
    """

    multiple: ClassVar[int] = 1

    def __init__(self, *, stages: int = 5, filter_side: int = 7, gaussians: int = 63) -> None:
        """Create the stages.

        Args:
            stages: steps of the diffusion, 1 or more.
            filter_side: S, 3, 5 or 7 pixels (H and W of 8 hold no more).
            gaussians: R, radial basis functions of an influence function, odd.
        """
        super().__init__()
        if stages < 1:
            raise ValueError(f"stages {stages}: choose 1 or more")
        if filter_side not in (3, 5, 7):
            raise ValueError(f"filter_side {filter_side}: choose 3, 5 or 7")
        if gaussians < 1 or gaussians % 2 == 0:
            raise ValueError(f"gaussians {gaussians}: choose an odd number, 1 or more")
        self.layer_names = tuple(f"stages.{number}" for number in range(stages))
        self.receptive_field = stages * 2 * (filter_side - 1) + 1
        self.stages = nn.ModuleList(DiffusionStep(filter_side, gaussians) for _ in range(stages))

    def forward(self, x: Tensor) -> Tensor:
        """Restore `x`: (N, 1, H, W) -> (N, 1, H, W)."""
        start = PIXEL_RANGE * x
        image = start
        for stage in self.stages:
            image = stage(image, start)
        return image / PIXEL_RANGE


class DiffusionStep(nn.Module):
    """One step on the 0 to 255 scale: the image so far and the input, (N, 1, H, W), to the next."""

    def __init__(self, side: int, gaussians: int) -> None:
        super().__init__()
        filters = side**2 - 1
        self.coefficients = nn.Parameter(torch.eye(filters))
        self.influence = Influence(filters, gaussians, slope=0.1 / side**2)
        self.reaction = nn.Parameter(torch.tensor(0.1))
        self.basis: Tensor
        self.register_buffer("basis", dct_filters(side), persistent=False)

    def forward(self, image: Tensor, start: Tensor) -> Tensor:
        """Return the image after the step."""
        filters = self.filters()
        border = filters.shape[-1] - 1
        responses = F.conv2d(F.pad(image, (border,) * 4, mode="replicate"), filters)
        turned = filters.flip(2, 3).transpose(0, 1)
        diffusion = F.conv2d(self.influence(responses).to(turned.dtype), turned)
        return (image - diffusion + self.reaction * start) / (1 + self.reaction)

    def filters(self) -> Tensor:
        """Return the filters, (K, 1, S, S), each of mean 0 and norm 1."""
        combined = (F.normalize(self.coefficients)[:, :, None] * self.basis.flatten(1)).sum(1)
        return combined.unflatten(1, (1, *self.basis.shape[1:]))


class Influence(nn.Module):
    """Phi: a sum of Gaussians for each channel, (N, K, H, W) to the same shape.

    phi_i(z) = sum_j w_ij exp(-(z - m_j)^2 / (2 SPACING^2)), centres m_j SPACING apart around 0.
    The sum is tabulated for each channel and interpolated linearly: time and memory do not grow
    with the number of Gaussians, and gradients reach z and the weights.
    """

    def __init__(self, channels: int, gaussians: int, slope: float) -> None:
        """Start as slope * z / (1 + (z / SPACING)^2), smoothed by the Gaussian."""
        super().__init__()
        centres = SPACING * (torch.arange(gaussians) - gaussians // 2)
        self.end = SPACING * (gaussians // 2 + BEYOND)
        start = slope * centres / (1 + (centres / SPACING) ** 2) / math.sqrt(2 * math.pi)
        self.weights = nn.Parameter(start.repeat(channels, 1))
        entries = torch.linspace(
            -self.end, self.end, 2 * (gaussians // 2 + BEYOND) * STEPS + 1, dtype=torch.double
        )
        bells = torch.exp(-0.5 * ((entries - centres[:, None]) / SPACING) ** 2)
        self.bells: Tensor
        self.register_buffer("bells", bells.float(), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Return phi(z), in float32 or better."""
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        table = self.table().to(z.dtype)
        pairs = torch.stack([table[:, :-1], table.diff(dim=1)], dim=2)
        channels, cells = pairs.shape[:2]
        position = ((z + self.end) * (STEPS / SPACING)).clamp(0, cells)
        cell = position.detach().floor().clamp(max=cells - 1)
        first = torch.arange(channels, device=z.device)[:, None, None] * cells
        value, rise = F.embedding(cell.long() + first, pairs.flatten(0, 1)).unbind(-1)
        return value + rise * (position - cell)

    def table(self) -> Tensor:
        """Return phi at every entry of the table, (K, entries), in float64: no autocast."""
        return self.weights.double() @ self.bells.double()


def dct_filters(side: int) -> Tensor:
    """Return the two-dimensional DCT's basis but the constant: (S^2 - 1, S, S), orthonormal."""
    place = torch.arange(side, dtype=torch.double)
    rows = torch.cos(math.pi / side * place[:, None] * (place + 0.5))
    rows = F.normalize(rows)
    both = rows[:, None, :, None] * rows[None, :, None, :]
    return both.flatten(0, 1)[1:].float()
