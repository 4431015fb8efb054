"""Pictures are whole PNGs that show the pixels they claim to show."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pipeline.drawing.pictures import PANEL, before_after, choose_details, contact_sheet
from pipeline.images.jpeg import compress


@pytest.fixture(scope="module")
def original() -> np.ndarray:
    return np.ascontiguousarray(data.camera()[50:346, 100:420])


@pytest.fixture(scope="module")
def jpeg(original) -> np.ndarray:
    return compress(original, 10)[0]


def test_details_lie_where_restoration_helps_most(original, jpeg):
    restored = jpeg.copy()
    restored[200:272, 30:102] = original[200:272, 30:102]
    (top, left, side), *_ = choose_details(original, jpeg, restored, 1)
    assert side == 72
    assert abs(top - 200) < 8
    assert abs(left - 30) < 8


@pytest.mark.parametrize("shape", [(8, 8), (9, 40), (40, 300), (296, 320)])
def test_details_lie_inside_the_image_and_do_not_overlap(shape, original, jpeg):
    height, width = shape
    restored = original[:height, :width]
    boxes = choose_details(restored, jpeg[:height, :width], restored, 3)
    assert 1 <= len(boxes) <= 3
    seen = np.zeros(shape, int)
    for top, left, side in boxes:
        assert seen[top : top + side, left : left + side].shape == (side, side)
        seen[top : top + side, left : left + side] += 1
    assert seen.max() == 1


def test_before_and_after_shows_the_enlarged_pixels_of_jpeg_network_and_original(
    original, jpeg, tmp_path
):
    restored = ((original.astype(int) + jpeg) // 2).astype(np.uint8)
    before_after(original, jpeg, restored, tmp_path / "new" / "picture.png", title="Cameraman")
    with Image.open(tmp_path / "new" / "picture.png") as image:
        assert image.format == "PNG"
        page = np.array(image.convert("L"))
    for top, left, side in choose_details(original, jpeg, restored, 2):
        factor = PANEL // side
        for version in (jpeg, restored, original):
            detail = version[top : top + side, left : left + side]
            enlarged = detail.repeat(factor, 0).repeat(factor, 1)[20:-20, 20:-20]
            assert contains(page, enlarged)


@pytest.mark.parametrize("shape", [(8, 8), (8, 200), (200, 8), (33, 47)])
def test_before_and_after_of_any_shape_is_a_readable_page(shape, original, jpeg, tmp_path):
    cut = (slice(shape[0]), slice(shape[1]))
    before_after(original[cut], jpeg[cut], original[cut], tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.width > 3 * PANEL
        assert image.height < 5 * PANEL


def test_a_contact_sheet_shows_every_version_of_every_patch(original, tmp_path):
    patches = []
    for top, left in ((0, 0), (64, 80), (128, 160), (200, 200)):
        patch = np.ascontiguousarray(original[top : top + 32, left : left + 32])
        patches.append({"original": patch, "qf10": compress(patch, 10)[0]})
    contact_sheet(patches, tmp_path / "sheet.png", subtitle="4 of 9,000 patches")
    with Image.open(tmp_path / "sheet.png") as image:
        page = np.array(image.convert("L"))
    for versions in patches:
        for patch in versions.values():
            assert contains(page, patch.repeat(5, 0).repeat(5, 1))


def test_an_empty_contact_sheet_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no patch to show"):
        contact_sheet([], tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def contains(page: np.ndarray, part: np.ndarray) -> bool:
    """Tell whether `part` stands somewhere on `page`, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(page, part.shape)
    probes = [(y, x) for y in range(0, part.shape[0], 24) for x in range(0, part.shape[1], 24)]
    candidates = np.ones(windows.shape[:2], bool)
    for y, x in probes:
        candidates &= windows[:, :, y, x] == part[y, x]
    return any(np.array_equal(windows[y, x], part) for y, x in np.argwhere(candidates))
