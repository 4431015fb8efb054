"""The metrics equal independent references, and the JPEG rows that the papers print."""

from collections.abc import Iterable
from math import log2

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pipeline.images.jpeg import compress
from pipeline.images.metrics import (
    MAX_DB,
    METRICS,
    blocking_effect,
    psnr,
    psnr_b,
    ssim,
    ssim_gaussian,
)

SIZES = [(8, 8), (8, 40), (11, 11), (33, 47), (57, 64), (64, 65), (200, 301)]
# dataset folder, QF: PSNR, SSIM, Gaussian SSIM, PSNR-B, bits a pixel (FACTS: published JPEG rows)
JPEG_ROWS = {
    ("LIVE1", 10): (27.770, 0.7905, 0.7730, 25.333, 0.302),
    ("LIVE1", 20): (30.072, 0.8683, 0.8512, 27.566, 0.489),
    ("LIVE1", 30): (31.407, 0.9000, 0.8851, 28.923, 0.638),
    ("LIVE1", 40): (32.355, 0.9173, 0.9041, 29.957, 0.762),
    ("LIVE1", 60): (33.984, 0.9396, 0.9293, 31.793, 1.002),
    ("LIVE1", 80): (36.873, 0.9641, 0.9576, 35.258, 1.500),
    ("Classic5", 10): (27.821, 0.7800, 0.7595, 25.209, 0.298),
    ("Classic5", 20): (30.123, 0.8541, 0.8344, 27.501, 0.471),
    ("Classic5", 30): (31.484, 0.8844, 0.8666, 28.939, 0.614),
}


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.ascontiguousarray(data.camera())


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def pair(request, photograph) -> tuple[np.ndarray, np.ndarray]:
    """A photograph's detail and what a strong JPEG makes of it."""
    height, width = request.param
    original = np.ascontiguousarray(photograph[120 : 120 + height, 180 : 180 + width])
    return original, compress(original, 10)[0]


def brute_force_blocking_effect(image: np.ndarray) -> float:
    """Yim and Bovik's definition, one pair of neighbours at a time."""
    height, width = image.shape
    on_grid = inside = 0
    for y in range(height):
        for x in range(width):
            for ny, nx, place in ((y, x + 1, x + 1), (y + 1, x, y + 1)):
                if ny < height and nx < width:
                    step = (int(image[y, x]) - int(image[ny, nx])) ** 2
                    if place % 8 == 0:
                        on_grid += step
                    else:
                        inside += step
    count = height * (width / 8 - 1) + width * (height / 8 - 1)
    if not count:
        return 0.0
    mean_on_grid = on_grid / count
    mean_inside = inside / (height * (width - 1) + width * (height - 1) - count)
    weight = log2(8) / log2(min(height, width)) if mean_on_grid > mean_inside else 0
    return weight * (mean_on_grid - mean_inside)


def mirrored_to_11(image: np.ndarray) -> np.ndarray:
    """Repeat the last rows and columns in reverse order until both sides have 11 pixels."""
    for axis in (0, 1):
        missing = max(0, 11 - image.shape[axis])
        tail = np.flip(image, axis).take(range(missing), axis)
        image = np.concatenate([image, tail], axis)
    return image


def test_psnr_equals_scikit_image(pair):
    original, restored = pair
    assert psnr(original, restored) == pytest.approx(
        peak_signal_noise_ratio(original, restored), abs=1e-10
    )


def test_uniform_ssim_is_the_mean_over_8x8_windows(pair):
    a, b = (np.lib.stride_tricks.sliding_window_view(x.astype(float), (8, 8)) for x in pair)
    axes = (2, 3)
    mean_a, mean_b = a.mean(axes), b.mean(axes)
    covariance = (a * b).mean(axes) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + 6.5025) * (2 * covariance + 58.5225)) / (
        (mean_a**2 + mean_b**2 + 6.5025) * (a.var(axes) + b.var(axes) + 58.5225)
    )
    assert ssim(*pair) == pytest.approx(similarity.mean(), abs=1e-6)


def test_gaussian_ssim_equals_scikit_image(pair):
    original, restored = (mirrored_to_11(image) for image in pair)
    similarities = structural_similarity(
        original,
        restored,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )[1]
    expected = np.asarray(similarities)[5:-5, 5:-5].mean()
    assert ssim_gaussian(original, restored) == pytest.approx(expected, abs=5e-6)


def test_gaussian_ssim_of_an_image_below_11_pixels_is_that_of_its_mirrored_extension(photograph):
    original = photograph[:8, :30]
    restored = compress(np.ascontiguousarray(original), 10)[0]
    mirrored = [mirrored_to_11(image) for image in (original, restored)]
    assert mirrored[0].shape == (11, 30)
    assert ssim_gaussian(original, restored) == ssim_gaussian(*mirrored)


def test_psnr_b_equals_the_definition_taken_pixel_by_pixel(pair):
    original, restored = pair
    effect = brute_force_blocking_effect(restored)
    assert blocking_effect(restored) == pytest.approx(effect, rel=1e-12)
    error = np.mean((original.astype(float) - restored) ** 2) + effect
    assert psnr_b(original, restored) == pytest.approx(10 * np.log10(255**2 / error), abs=1e-10)


def test_psnr_b_punishes_steps_on_the_jpeg_grid_only():
    flat = np.full((64, 64), 100, np.uint8)
    on_grid, beside_grid = flat.copy(), flat.copy()
    on_grid[:, 8:16] += 10
    beside_grid[:, 4:12] += 10
    assert psnr_b(flat, on_grid) < psnr(flat, on_grid)
    assert psnr_b(flat, beside_grid) == psnr(flat, beside_grid)


def test_psnr_b_looks_for_blocks_in_the_restored_image_and_not_in_the_original(photograph):
    blocky = compress(photograph, 5)[0]
    assert blocking_effect(blocky) > 0
    assert psnr_b(blocky, photograph) > psnr_b(photograph, blocky)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_an_image_equal_to_its_original_gets_the_best_score(name, photograph):
    smooth = np.tile(np.arange(0, 128, dtype=np.uint8), (128, 1))
    best = MAX_DB if name.startswith("psnr") else 1.0
    assert METRICS[name].measure(smooth, smooth) == pytest.approx(best, abs=1e-6)
    assert METRICS[name].measure(photograph, compress(photograph, 90)[0]) < best


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_stronger_compression_scores_lower(name, photograph):
    scores = [METRICS[name].measure(photograph, compress(photograph, qf)[0]) for qf in (10, 40, 80)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("extremes", [(0, 255), (255, 255), (0, 0)])
def test_extreme_images_do_not_overflow(name, extremes):
    original, restored = (np.full((300, 300), value, np.uint8) for value in extremes)
    value = METRICS[name].measure(original, restored)
    assert np.isfinite(value)
    if extremes == (0, 255):
        assert value == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_refuses_what_it_cannot_compare(name):
    image = np.zeros((16, 16), np.uint8)
    with pytest.raises(ValueError, match="differ in shape"):
        METRICS[name].measure(image, np.zeros((16, 17), np.uint8))
    for wrong in (np.zeros((16, 16)), np.zeros((16, 16, 3), np.uint8), np.zeros((7, 16), np.uint8)):
        with pytest.raises(ValueError, match="sides of at least 8 pixels"):
            METRICS[name].measure(image, wrong)


@pytest.mark.parametrize(
    ("folder", "qf"),
    [
        pytest.param(*row, marks=[pytest.mark.slow] if row[0] == "LIVE1" else [])
        for row in sorted(JPEG_ROWS)
    ],
)
def test_the_jpeg_row_equals_the_published_one_to_the_printed_digit(folder, qf, datasets_root):
    values = []
    for path in sorted((datasets_root / folder).iterdir()):
        with Image.open(path) as image:
            original = np.array(image)
        restored, size = compress(original, qf)
        scores = [metric.measure(original, restored) for metric in METRICS.values()]
        values.append([*scores, 8 * size / original.size])
    assert printed(np.mean(values, axis=0)) == printed(JPEG_ROWS[folder, qf])


def printed(row: Iterable[float]) -> list[str]:
    return [f"{value:.{digits}f}" for value, digits in zip(row, (3, 4, 4, 3, 3), strict=True)]
