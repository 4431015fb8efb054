"""The grid, the cut and the mosaic."""

import numpy as np
import pytest

from pipeline.images.degrade import before_jpeg
from pipeline.images.jpeg import compress
from pipeline.patches.cut import compress_patches, grid, patch_blocks
from storage.patches.schema import ORIGINAL, PatchSpec
from tests.support.store_images import texture


def spec(**changes):
    values = {"side": 32, "stride": 10, "qfs": (10, 40), "degradation": "patch", **changes}
    return PatchSpec(**values)


def collected(luma, wanted):
    blocks = list(patch_blocks(luma, wanted))
    names = blocks[0].pixels
    return {name: np.concatenate([block.pixels[name] for block in blocks]) for name in names}


def test_a_bsds_image_gives_the_papers_1305_patches():
    ys, xs = grid(321, 481, spec())
    assert len(ys) == len(xs) == 1305
    assert ys.max() <= 321 - 32
    assert xs.max() <= 481 - 32


def test_an_image_smaller_than_a_patch_gives_none():
    assert list(patch_blocks(texture(31, 400, seed=0), spec())) == []


@pytest.mark.parametrize("side", [32, 40, 120, 224])
@pytest.mark.parametrize("qf", [1, 10, 100])
def test_the_mosaic_equals_compressing_one_by_one_bit_for_bit(side, qf):
    luma = texture(side + 50, side + 130, seed=side)
    (block,) = patch_blocks(luma, spec(side=side, stride=13, qfs=(qf,)))
    one_by_one = [compress(patch, qf)[0] for patch in block.pixels[ORIGINAL]]
    np.testing.assert_array_equal(block.pixels[f"qf{qf}"], one_by_one)


def test_more_patches_than_one_block_equal_one_by_one():
    luma = texture(700, 900, seed=0)
    wanted = spec(stride=8, qfs=(20,))
    patches = collected(luma, wanted)
    assert len(patches[ORIGINAL]) > 4096
    rows = np.random.default_rng(1).integers(0, len(patches[ORIGINAL]), 50)
    for row in rows:
        expected = compress(patches[ORIGINAL][row], 20)[0]
        np.testing.assert_array_equal(patches["qf20"][row], expected)


def test_cutting_aligned_patches_from_the_compressed_image_equals_compressing_them():
    luma = texture(200, 264, seed=0)
    aligned = {"side": 40, "stride": 16}
    by_image = collected(luma, spec(**aligned, degradation="image"))
    by_patch = collected(luma, spec(**aligned, degradation="patch"))
    for name, pixels in by_image.items():
        np.testing.assert_array_equal(pixels, by_patch[name])


def test_patches_off_the_grid_differ_between_the_two_degradations():
    luma = texture(200, 264, seed=0)
    by_image = collected(luma, spec(degradation="image"))
    by_patch = collected(luma, spec(degradation="patch"))
    np.testing.assert_array_equal(by_image[ORIGINAL], by_patch[ORIGINAL])
    assert (by_image["qf10"] != by_patch["qf10"]).any()


def test_patches_of_a_rescaled_photo_are_cut_from_both_reductions():
    luma = texture(200, 264, seed=0)
    patches = collected(luma, spec(degradation="rescaled"))
    ys, xs = grid(100, 132, spec())
    pair = before_jpeg(luma, "rescaled")
    assert len(patches[ORIGINAL]) == len(ys)
    for qf in (10, 40):
        compressed = compress(pair.source, qf)[0]
        for y, x, patch in zip(ys, xs, patches[f"qf{qf}"], strict=True):
            np.testing.assert_array_equal(patch, compressed[y : y + 32, x : x + 32])
    for y, x, patch in zip(ys, xs, patches[ORIGINAL], strict=True):
        np.testing.assert_array_equal(patch, pair.original[y : y + 32, x : x + 32])


def test_the_fingerprint_of_a_spec_stays_what_it_was():
    """Shards are named by it: a change would rebuild every store."""
    digest = spec(qfs=(10, 20, 30, 40)).fingerprint
    assert digest == "2aff5481b98291703617f04a355f7bb589e074eda7c617f1179c8c7b986d7161"


def test_every_patch_is_the_image_at_its_corner():
    luma = texture(90, 110, seed=0)
    for block in patch_blocks(luma, spec()):
        for y, x, patch in zip(block.y, block.x, block.pixels[ORIGINAL], strict=True):
            np.testing.assert_array_equal(patch, luma[y : y + 32, x : x + 32])


def test_a_side_that_is_no_multiple_of_8_cannot_share_a_mosaic():
    with pytest.raises(ValueError, match="multiples of 8"):
        compress_patches(np.zeros((2, 20, 20), np.uint8), 10)


@pytest.mark.parametrize(
    ("field", "value"),
    [("side", 36), ("side", 24), ("side", 232), ("stride", 0), ("qfs", ()), ("qfs", (0,)),
     ("qfs", (101,)), ("degradation", "both"), ("luma", "rec709")],
)  # fmt: skip
def test_a_bad_spec_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match="luma" if field == "luma" else field):
        spec(**{field: value})
