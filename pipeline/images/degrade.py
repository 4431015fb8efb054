"""What happens to a photo before its JPEG: nothing, or the rescaling of a photo service.

AR-CNN (Dong et al. 2015, section 4.2.3) restores photos that Twitter had made smaller, 3264x2448
to 600x450, and compressed. The service's filters are not published. Chosen here:

- the original that a network should give is the photo reduced by a good filter (Lanczos);
- what the service compresses is the photo reduced by a plainer one (bilinear);
- both filters are Pillow's, which are widened to the scale and so do not alias;
- the longer side becomes 600 pixels, or half of what it is where that is less, so that datasets of
  small images can be used.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from storage.patches.schema import Degradation

Protocol = Literal["image", "rescaled"]
"""How an evaluation makes its inputs: `image` compresses the image as it is (the papers' standard
protocol), `rescaled` reduces it first."""
STANDARD: Protocol = "image"
LONGER_SIDE = 600
"""Pixels of the longer side that the service leaves."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One photo twice, each (H, W) uint8 of the same shape."""

    original: np.ndarray
    """What restoration should give."""
    source: np.ndarray
    """What is compressed."""


def rescaled_shape(height: int, width: int) -> tuple[int, int]:
    """Return height and width, in pixels, of a photo after the service's reduction."""
    longer = max(height, width)
    scale = min(LONGER_SIDE, longer // 2) / longer
    return round(height * scale), round(width * scale)


def before_jpeg(luma: np.ndarray, degradation: Degradation) -> Pair:
    """Return the original and what is compressed of a photo, (H, W) uint8 luma.

    They are the photo itself unless the degradation is `rescaled`. Raises ValueError for a photo
    of which the reduction leaves nothing.
    """
    if degradation != "rescaled":
        return Pair(original=luma, source=luma)
    height, width = rescaled_shape(*luma.shape)
    if min(height, width) < 1:
        raise ValueError(f"{luma.shape[1]}x{luma.shape[0]} pixels: nothing is left when rescaled")
    photo = Image.fromarray(luma)
    return Pair(
        original=np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS)),
        source=np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR)),
    )


def protocol_of(degradation: Degradation) -> Protocol:
    """Return how networks trained on patches of this degradation are scored."""
    return "rescaled" if degradation == "rescaled" else STANDARD


def check_protocol(degradation: str) -> None:
    """Raise ValueError, which lists the known ones, unless an evaluation can be made this way."""
    if degradation not in get_args(Protocol):
        raise ValueError(f"degradation {degradation!r}: choose one of {list(get_args(Protocol))}")
