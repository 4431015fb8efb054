"""Super-resolution of luma: small images as the literature makes them, bicubic, and SRCNN.

A small image is the original, cropped to a multiple of the factor, reduced by the bicubic kernel
(a = -0.5, widened by the factor, as MATLAB's `imresize` and Pillow do) and rounded to uint8. SRCNN
(Dong et al. 2014) improves what the bicubic kernel has enlarged.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from pipeline.networks.restorer import network_restorer

Enlarger = Callable[[np.ndarray], np.ndarray]
"""Luma (H, W) uint8 -> (factor H, factor W) uint8."""

FACTOR = 2
"""Of SRCNN."""
SRCNN_WEIGHTS = Path(__file__).with_name("srcnn-x2.safetensors")
"""Of an SRCNN for FACTOR, trained on the photographs of `sample` by tests/benchmarks/srcnn.py."""


def cropped(luma: np.ndarray, factor: int) -> np.ndarray:
    """Return (H, W) without its last rows and columns, so that both sides are multiples."""
    height, width = (side - side % factor for side in luma.shape)
    return np.ascontiguousarray(luma[:height, :width])


def reduced(luma: np.ndarray, factor: int) -> np.ndarray:
    """Return (H, W) uint8, both multiples of `factor`, as (H / factor, W / factor) uint8."""
    height, width = luma.shape
    return _resized(luma, height // factor, width // factor)


def enlarged(luma: np.ndarray, factor: int) -> np.ndarray:
    """Return (H, W) uint8 as (factor H, factor W) uint8 by the bicubic kernel."""
    height, width = luma.shape
    return _resized(luma, height * factor, width * factor)


def srcnn_enlarger(network: nn.Module) -> Enlarger:
    """Return a function that enlarges by the bicubic kernel and improves that by a network.

    `network` takes and gives (N, 1, H, W) float32 in [0, 1], as models.srcnn.SRCNN does.
    """
    improve = network_restorer(network)
    no_table = np.ones((8, 8), np.uint8)
    return lambda luma: improve(enlarged(luma, FACTOR), no_table)


def _resized(luma: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(luma).resize((width, height), Image.Resampling.BICUBIC))
