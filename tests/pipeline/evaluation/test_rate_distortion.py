"""Quality against bits: Bjontegaard's differences by hand, curves that agree with evaluation."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation import protocol
from pipeline.evaluation.rate_distortion import (
    AXES,
    JPEG,
    bd_quality,
    bd_rate,
    rate_distortion,
    rate_distortion_chart,
)
from pipeline.images.metrics import METRICS
from tests.pipeline.evaluation.test_cross_quality import ZOO, identity
from tests.support.commands import several

REAL = [(0.30, 27.8), (0.49, 30.1), (0.64, 31.4), (0.76, 32.4)]


@pytest.fixture(scope="module")
def crops(photographs):
    return [(name, np.ascontiguousarray(luma[96:176, 96:192])) for name, luma in photographs]


@pytest.fixture(scope="module")
def found(crops):
    originals = iter([luma for _, luma in crops for _ in range(3)])
    answers = {"warm-up": True}

    def better(luma, table):
        """Three quarters of the error."""
        if answers.pop("warm-up", False):
            return luma
        return np.rint((3 * luma.astype(float) + next(originals)) / 4).astype(np.uint8)

    return rate_distortion({"same": identity, "better": better}, crops, "crops", [10, 20, 40])


def test_half_the_rate_at_every_quality_is_minus_fifty_percent():
    straight = [(1.0, 30.0), (10.0, 40.0)]  # 10 dB a decade of rate
    half = [(0.5, 30.0), (5.0, 40.0)]
    assert bd_rate(straight, half) == pytest.approx(-50)
    assert bd_rate(half, straight) == pytest.approx(100)
    assert bd_quality(straight, half) == pytest.approx(10 * math.log10(2))


@pytest.mark.parametrize("share", [0.7, 1.0, 1.25])
def test_a_curve_at_a_share_of_the_rate_differs_by_that_share_whatever_its_shape(share):
    moved = [(share * rate, quality) for rate, quality in REAL]
    assert bd_rate(REAL, moved) == pytest.approx(100 * (share - 1))


def test_a_curve_that_lies_higher_by_a_constant_differs_by_that_constant():
    assert bd_quality(REAL, [(rate, quality + 1.5) for rate, quality in REAL]) == pytest.approx(1.5)


def test_the_interpolation_is_piecewise_cubic_and_monotone():
    """By hand: slopes 1 and 2, so derivatives 1/2, 4/3, 5/2; the cubics' integral is 7/3, not 2."""
    straight = [(1.0, 30.0), (10.0, 31.0), (100.0, 32.0)]
    bent = [(1.0, 30.0), (10.0, 31.0), (1000.0, 32.0)]
    assert bd_rate(straight, bent) == pytest.approx(100 * (10 ** (1 / 6) - 1))


def test_only_the_range_that_both_curves_have_is_compared():
    straight = [(1.0, 30.0), (10.0, 40.0)]
    half = [(0.5 * 10 ** (quality / 10 - 3), quality) for quality in (20.0, 25.0, 30.0, 40.0, 45.0)]
    assert bd_rate(straight, [(0.001, 19.0), *half, (400.0, 46.0)]) == pytest.approx(-50)


@pytest.mark.parametrize(
    ("reference", "other", "told"),
    [
        (REAL, REAL[:1], "other curve has 1 points: give two or more"),
        ([], REAL, "reference curve has 0 points"),
        (REAL, [(0.0, 1.0), (1.0, 2.0)], "rates above 0"),
        (REAL, [(1.0, 30.0), (1.0, 31.0)], "that differ"),
        (REAL, [(1.0, float("nan")), (2.0, 31.0)], "finite"),
        (REAL, [(0.3, 29.0), (0.5, 28.0)], "does not rise"),
        (REAL, [(0.3, 50.0), (0.5, 60.0)], "no range of quality in common"),
    ],
)
def test_what_is_no_pair_of_curves_is_refused(reference, other, told):
    with pytest.raises(ValueError, match=told):
        bd_rate(reference, other)


def test_quality_at_equal_rate_needs_no_rising_curve_but_a_common_rate():
    assert bd_quality(REAL, [(0.3, 27.0), (0.76, 26.0)]) < 0
    with pytest.raises(ValueError, match="no range of logarithm of the rate in common"):
        bd_quality(REAL, [(3.0, 27.0), (7.6, 26.0)])


def test_jpeg_against_itself_differs_by_nothing(found):
    assert found.bd_rate(JPEG) == 0
    assert found.bd_psnr(JPEG) == 0
    assert found.curve("same") == found.curve(JPEG)
    assert found.bd_rate("same") == 0
    for qf in (10, 20, 40):
        assert found.bits_saved("same", qf) == pytest.approx(0, abs=1e-12)


def test_points_are_the_means_of_an_evaluation(found, crops):
    result = protocol.evaluate(None, crops, "crops", [10, 20, 40])
    assert found.curve(JPEG, "ssim") == [(row.bpp, row.metrics["ssim"]) for row in result.rows]
    assert set(found.curves()) == {JPEG, "same", "better"}


def test_three_quarters_of_the_error_are_two_and_a_half_decibels_and_save_bits(found):
    assert found.bd_psnr("better") == pytest.approx(20 * math.log10(4 / 3), abs=0.1)
    assert -50 < found.bd_rate("better") < -10
    saved = found.bits_saved("better", 10)
    assert saved is not None
    assert 0.1 < saved < 0.5
    assert found.bits_saved("better", 40) is None  # no JPEG here was that good


def test_bits_saved_are_read_off_the_curve_of_jpeg(crops):
    """A network that gives what JPEG gives at QF 20 takes the bits of QF 10 in place of QF 20's."""
    shown = iter([protocol.jpeg.compress(luma, 20)[0] for _, luma in crops for _ in range(2)])
    first = {"warm-up": True}
    found = rate_distortion(
        {"as QF 20": lambda luma, table: luma if first.pop("warm-up", 0) else next(shown)},
        crops, "crops", [10, 20],
    )  # fmt: skip
    (ten, _), (twenty, _) = found.curve(JPEG)
    assert found.bits_saved("as QF 20", 10) == pytest.approx(1 - ten / twenty)


def test_a_network_cannot_take_the_name_of_jpeg(crops):
    with pytest.raises(ValueError, match="rename it"):
        rate_distortion({JPEG: identity}, crops, "crops")


def test_an_unknown_curve_or_metric_lists_the_known_ones(found):
    with pytest.raises(ValueError, match=r"metric of \['psnr'.*curve of \['JPEG', 'same'"):
        found.curve("nix")
    with pytest.raises(ValueError, match="'vmaf' of 'same'"):
        found.curve("same", "vmaf")


def test_each_metric_of_the_figure_has_a_chart_with_every_curve(found):
    for metric in AXES:
        chart = rate_distortion_chart(found, metric)
        names = chart.spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
        assert set(names) == {JPEG, "same", "better"}
    assert set(AXES) <= METRICS.keys()


@pytest.mark.slow
def test_the_command_draws_both_curves_and_refuses_a_single_point(tmp_path):
    network = ZOO / "quickres-qf10.safetensors"
    images = ("--dataset", "sample", "--images", "1")
    command = ("analyze", "rate-distortion", network, *images)
    table, answer, one, unknown, beyond = several(
        tmp_path,
        [
            (*command, "--qf", "5", "10", "20", "-o", tmp_path / "here"),
            (*command, "--qf", "5", "10", "20", "--json"),
            (*command, "--qf", "10"),
            ("analyze", "rate-distortion", network, "--dataset", "nix"),
            (*command, "--qf", "10", "0"),
        ],
    )
    assert table.code == 0, table.err
    assert "bits at equal PSNR" in table.out
    for name in ("psnr.png", "ssim.png", "ssim_gaussian.png"):
        with Image.open(tmp_path / "here" / name) as chart:
            assert chart.size[0] > 1000
    with (tmp_path / "here" / "rate-distortion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["qf"]) for row in rows] == [
        (name, qf) for name in (JPEG, "quickres-qf10") for qf in ("5", "10", "20")
    ]
    told = json.loads(answer.out)
    (difference,) = told["differences"]
    assert difference["bd_rate"] < -5
    assert difference["bd_psnr"] > 0.3
    assert told["curves"][0]["gain"] == 0
    assert told["curves"][4]["saved"] > 0.05
    assert [one.code, unknown.code, beyond.code] == [2, 2, 2]
    assert "two or more quality factors" in " ".join(one.err.split())
    assert "live1, classic5" in " ".join(unknown.err.split())
    assert "greater than or equal to 1" in " ".join(beyond.err.split())
