"""Rescaled photos: their size, their two filters, and what other degradations leave alone."""

import numpy as np
import pytest
from skimage import data

from pipeline.images.degrade import before_jpeg, protocol_of, rescaled_shape


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2448, 3264), (450, 600)),  # the paper's photos
        ((3264, 2448), (600, 450)),
        ((1200, 1200), (600, 600)),
        ((321, 481), (160, 240)),  # BSDS500: half, the longer side rounded down
        ((512, 512), (256, 256)),
        ((1356, 2040), (399, 600)),  # DIV2K
        ((16, 16), (8, 8)),
    ],
)
def test_the_longer_side_becomes_600_pixels_or_half(before, after):
    assert rescaled_shape(*before) == after


def test_no_photo_becomes_larger_than_its_half_or_than_600_pixels():
    for side in range(1, 3000, 7):
        height, width = rescaled_shape(side, side // 2)
        assert height <= min(600, side // 2)
        assert width <= min(300, side // 4 + 1)


def test_the_service_softens_what_the_original_keeps():
    photo = data.camera()
    pair = before_jpeg(photo, "rescaled")
    assert pair.original.shape == pair.source.shape == (256, 256)
    detail, softened = (
        np.abs(np.diff(image.astype(int), axis=1)).mean() for image in (pair.original, pair.source)
    )
    assert softened < detail
    # both show the same picture: the mean of each 2x2 block, nearly
    blocks = photo.reshape(256, 2, 256, 2).mean((1, 3))
    for image in (pair.original, pair.source):
        assert np.sqrt(np.mean((image - blocks) ** 2)) < 6


def test_fine_stripes_do_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (1280, 640))
    assert stripes[::2, ::2].std() == 0  # picking pixels would make them black
    for image in vars(before_jpeg(stripes, "rescaled")).values():
        assert np.abs(image.astype(int)[:, 8:-8] - 127).max() < 16


@pytest.mark.parametrize("degradation", ["image", "patch"])
def test_other_degradations_take_the_photo_as_it_is(degradation):
    photo = data.camera()
    pair = before_jpeg(photo, degradation)
    assert pair.original is photo
    assert pair.source is photo


def test_a_photo_that_vanishes_is_refused():
    with pytest.raises(ValueError, match="3000x1 pixels: nothing is left"):
        before_jpeg(np.zeros((1, 3000), np.uint8), "rescaled")


def test_networks_are_scored_on_what_they_were_trained_for():
    assert protocol_of("rescaled") == "rescaled"
    assert protocol_of("image") == protocol_of("patch") == "image"
