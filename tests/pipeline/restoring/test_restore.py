"""Restoring one photograph: the estimated quality, the choice of a network, the new file."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image
from scipy.fft import dctn
from skimage import data

from pipeline.images.jpeg import quantization_table
from pipeline.images.luma import rgb_to_luma
from pipeline.images.metrics import psnr
from pipeline.networks.restorer import network_restorer
from pipeline.networks.weights import load_network
from pipeline.restoring.one_photograph import (
    UNCHANGED,
    Network,
    NetworkUnavailable,
    choose_network,
    open_asked,
    restore_jpeg,
    when_used,
)
from pipeline.served.good_jpegs import estimate_qf
from pipeline.served.header import PhotographRejected
from pipeline.served.quantization_cells import SHARE, within_cells
from tests.pipeline.served.test_photographs import decoded, gap, jpeg, with_segment
from tests.support.project import PROJECT

ZOO = PROJECT / "models" / "zoo"
COFFEE = Image.fromarray(data.coffee())
MB_PER_MPX = 40


def identity(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
    return luma


def darker(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
    return luma // 2


def network(name: str, *qfs: int, restorer=darker, asked: bool = False) -> Network:
    return Network(name=name, qfs=qfs, restorer=restorer, asked=asked)


def shipped(name: str) -> Network:
    origin, module = load_network(str(ZOO / f"{name}.safetensors"))
    return network(name, *origin.qfs, restorer=network_restorer(module, "cpu"))


BLIND = network("blind", *range(5, 96, 5))
NETWORKS = [network("ten", 10), network("forty", 40), BLIND]


def rgb_psnr(content: bytes) -> float:
    return float(10 * np.log10(255**2 / np.square(gap(decoded(content), COFFEE)).mean()))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_quality_factor_is_found_in_its_own_table(dtype):
    for qf in range(1, 101):
        assert estimate_qf(quantization_table(qf).astype(dtype)) == (qf, True)


def test_another_encoders_table_gets_the_nearest_quality_factor():
    other = quantization_table(50).copy()
    other[3:, 3:] += 1
    assert estimate_qf(other) == (50, False)
    qf, exact = estimate_qf(np.full((8, 8), 3))
    assert 85 < qf < 99
    assert not exact
    finer = [estimate_qf(np.full((8, 8), step))[0] for step in range(200, 0, -10)]
    assert finer == sorted(finer)


CHOICES = [
    (NETWORKS, 10, "ten"),
    (NETWORKS, 11, "ten"),
    (NETWORKS, 39, "forty"),
    (NETWORKS, 20, "blind"),
    (NETWORKS, 60, "blind"),
    (NETWORKS, 3, "blind"),
    (NETWORKS[:2], 18, "ten"),
    (NETWORKS[:2], 30, "forty"),
    (NETWORKS[:1], 90, "ten"),
    ([network("registered", 10), *NETWORKS], 10, "registered"),
    ([network("eleven", 11), *NETWORKS], 10, "ten"),
    ([BLIND, network("another", 5, 95)], 60, "blind"),
]


@pytest.mark.parametrize(("networks", "qf", "chosen"), CHOICES)
def test_the_network_of_the_quality_factor_is_taken_else_a_blind_one_else_the_nearest(
    networks, qf, chosen
):
    assert choose_network(networks, quantization_table(qf)).name == chosen


def test_without_networks_the_error_names_the_command_that_makes_one():
    with pytest.raises(ValueError, match="qfactory study"):
        choose_network([], quantization_table(10))


def test_a_far_network_is_not_used_unless_the_user_named_it():
    content = jpeg(quality=60)
    left = restore_jpeg(content, [network("ten", 10)], kind="png")
    assert left.network == UNCHANGED
    assert left.notes == ("left as it is: QF 60 is far from QF 10, which ten is for",)
    assert gap(decoded(left.content), decoded(content)).max() == 0
    asked = restore_jpeg(content, [network("ten", 10, asked=True)], kind="png")
    assert asked.network == "ten"
    assert asked.notes == ("QF 60 is far from QF 10, which ten is for",)
    assert gap(decoded(asked.content), decoded(content)).mean() > 1


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_good_already_is_left_as_it_is(asked):
    content = jpeg(quality=90, subsampling="4:4:4")
    one = network("blind", *BLIND.qfs, asked=asked)
    left = restore_jpeg(content, [one], kind="png")
    assert (left.network, left.qf, left.exact) == (UNCHANGED, 90, True)
    assert "already good" in left.notes[0]
    assert gap(decoded(left.content), decoded(content)).max() == 0


def test_what_is_left_as_it_is_and_stays_a_jpeg_is_the_very_file():
    content = jpeg(quality=98)
    assert restore_jpeg(content, [BLIND], kind="jpeg").content == content


def test_a_network_gets_luma_as_it_is_and_the_files_own_table():
    seen = []

    def record(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        seen.append((luma, table))
        return luma

    content = jpeg(quality=10)
    restored = restore_jpeg(content, [network("n", 10, restorer=record)], kind="png")
    luma, table = seen[0]
    assert np.array_equal(table, quantization_table(10))
    assert np.array_equal(luma, np.asarray(decoded_luma(content)))
    assert restored.notes == ()


def decoded_luma(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.draft("YCbCr", image.size)
    return image.getchannel(0)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 300), (33, 47)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_any_size_keeps_its_size(size, kind):
    restored = restore_jpeg(
        jpeg(COFFEE.resize(size), quality=10), [shipped("quickres-qf10")], kind=kind
    )
    shown = decoded(restored.content)
    assert shown.format == kind.upper()
    assert shown.size == (restored.width, restored.height) == size


def test_the_size_told_is_that_of_the_upright_picture():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = jpeg(COFFEE, quality=10, exif=exif.tobytes())
    restored = restore_jpeg(content, [network("n", 10, restorer=identity)], kind="png")
    assert (restored.width, restored.height) == decoded(restored.content).size == (400, 600)


def test_a_truncated_photograph_is_restored_with_a_note():
    restored = restore_jpeg(jpeg(COFFEE, quality=10)[:9000], NETWORKS, kind="png")
    assert restored.network == "ten"
    assert "truncated" in restored.notes[0]


def test_what_is_no_photograph_is_refused():
    with pytest.raises(PhotographRejected, match="not a JPEG"):
        restore_jpeg(b"nonsense", NETWORKS, kind="png")
    with pytest.raises(PhotographRejected, match="600x400 is more than 1,000 pixels"):
        restore_jpeg(jpeg(COFFEE), NETWORKS, kind="png", max_pixels=1000)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("qf", [10, 20, 40])
def test_the_shipped_blind_network_restores_colour_photographs(qf, subsampling):
    content = jpeg(COFFEE, quality=qf, subsampling=subsampling)
    restored = restore_jpeg(content, [shipped("quickres-blind")], kind="png")
    assert restored.qf == qf
    assert rgb_psnr(restored.content) - rgb_psnr(content) > 0.3


def test_grey_photographs_are_restored_too():
    grey = Image.fromarray(rgb_to_luma(data.coffee()))
    content = jpeg(grey, quality=10)
    restored = restore_jpeg(content, [shipped("quickres-blind")], kind="png")
    before, after = (
        psnr(np.asarray(grey), np.asarray(decoded(c))) for c in (content, restored.content)
    )
    assert after - before > 0.5


def test_a_network_is_loaded_once_and_only_when_it_is_used():
    loaded = []

    def load():
        loaded.append(1)
        return identity

    lazy = network("n", 10, restorer=when_used(load))
    assert choose_network([lazy], quantization_table(10)) is lazy
    assert loaded == []
    for _ in range(3):
        restore_jpeg(jpeg(quality=10), [lazy], kind="png")
    assert loaded == [1]


def test_a_network_that_does_not_open_is_asked_once_and_the_next_one_is_used():
    asked_for = []

    def away():
        asked_for.append(1)
        raise ConnectionError("the store does not answer")

    networks = [network("away", 10, restorer=when_used(away)), *NETWORKS]
    for _ in range(3):
        restored = restore_jpeg(jpeg(quality=10), networks, kind="png")
        assert restored.network == "ten"
        assert restored.notes == (
            "away could not be opened, another was used: the store does not answer",
        )
    assert asked_for == [1]
    for _ in range(2):
        with pytest.raises(NetworkUnavailable, match="does not answer"):
            restore_jpeg(jpeg(quality=10), networks[:1], kind="png")


def test_a_named_network_that_does_not_open_is_told_at_once_and_never_replaced():
    def away():
        raise ValueError("no such version")

    named = network("away", 10, restorer=when_used(away), asked=True)
    with pytest.raises(NetworkUnavailable, match="no such version"):
        restore_jpeg(jpeg(quality=10), [named, *NETWORKS], kind="png")
    with pytest.raises(NetworkUnavailable, match="no such version"):
        open_asked([named])
    open_asked([network("unnamed", 10, restorer=when_used(away)), shipped("quickres-qf10")])


def test_what_a_png_cannot_hold_is_told_and_a_jpeg_that_stays_the_same_loses_nothing():
    content = with_segment(jpeg(quality=10), 0xED, b"Photoshop 3.0\0" + b"8BIM a caption")
    one = [network("n", 10, restorer=identity)]
    assert "IPTC" in restore_jpeg(content, one, kind="png").notes[0]
    assert restore_jpeg(content, one, kind="jpeg").notes == ()
    file = io.BytesIO()
    COFFEE.save(file, "MPO", save_all=True, append_images=[COFFEE], quality=97)
    assert "other pictures (1)" in restore_jpeg(file.getvalue(), one, kind="png").notes[0]
    same = restore_jpeg(file.getvalue(), one, kind="jpeg")
    assert same.content == file.getvalue()
    assert len(same.notes) == 1  # that it is good already


@pytest.mark.parametrize("qf", [40, 60, 90])
def test_no_coefficient_leaves_its_quantisation_cell(qf):
    rng = np.random.default_rng(0)
    table = quantization_table(qf)
    decoded_luma = rng.integers(110, 140, (40, 56)).astype(np.uint8)
    wild = rng.integers(0, 255, (40, 56)).astype(np.uint8)
    kept = within_cells(decoded_luma, wild, table).astype(float)
    blocks = (kept - decoded_luma).reshape(5, 8, 7, 8)
    moves = np.abs(np.asarray(dctn(blocks, axes=(1, 3), norm="ortho")))
    rounding = 4  # half a grey level a pixel at most, 64 pixels: 0.5 * 8
    assert (moves <= SHARE * table[None, :, None, :] + rounding).all()
    assert moves.max() > SHARE * table.min()


def test_small_changes_pass_the_cells_unchanged_at_any_size():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (9, 15), (200, 311)):
        luma = rng.integers(20, 235, shape).astype(np.uint8)
        changed = (luma + rng.integers(-1, 2, shape)).astype(np.uint8)
        assert np.array_equal(within_cells(luma, changed, np.full((8, 8), 99)), changed)


def test_a_network_that_is_out_of_its_depth_does_little_harm():
    content = jpeg(COFFEE, quality=85, subsampling="4:4:4")
    flat = network("flat", *BLIND.qfs, restorer=lambda luma, table: np.full_like(luma, 128))
    before, after = rgb_psnr(content), rgb_psnr(restore_jpeg(content, [flat], kind="png").content)
    assert before - after < 3  # a grey picture would lose more than 20 dB


PEAK = """
import resource, sys
from pipeline.restoring.one_photograph import restore_jpeg
from tests.pipeline.restoring.test_restore import COFFEE, jpeg, shipped
networks = [shipped("quickres-qf10")]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
large = jpeg(COFFEE.resize((3000, 2000)), quality=10)
restore_jpeg(jpeg(COFFEE.resize((900, 900)), quality=10), networks, kind="png")
before = peak()
restore_jpeg(large, networks, kind="png")
print((peak() - before) / 6)
"""


@pytest.mark.slow
def test_memory_is_bounded_by_tiling():
    told = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert float(told.stdout) < MB_PER_MPX  # in one piece it would be over 100
