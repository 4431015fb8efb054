"""What restoration does for later steps: known curves, exact inputs, SRCNN, the command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from models import build_model
from models.srcnn import SRCNN
from pipeline.evaluation.downstream import (
    INPUTS,
    JPEG,
    ORIGINAL,
    RESTORED,
    downstream,
    equalised,
    local_contrast,
    steps_of,
    tone_curve,
)
from pipeline.evaluation.super_resolution import (
    SRCNN_WEIGHTS,
    cropped,
    enlarged,
    reduced,
    srcnn_enlarger,
)
from pipeline.images.jpeg import compress
from pipeline.images.metrics import MAX_DB, psnr, ssim
from pipeline.networks.weights import load_network, save_weights
from pipeline.recipes import get_recipe
from tests.pipeline.evaluation.test_cross_quality import ZOO, identity
from tests.support.commands import several

STEPS = ("bicubic-x2", "bicubic-x3", "srcnn-x2", "tone-curve", "equalised", "local-contrast")


def passing_srcnn():
    """An SRCNN that returns its input: only the first channel is used, and it passes it on."""
    network = SRCNN().eval()
    with torch.no_grad():
        for conv in (network.conv1, network.conv2, network.conv3):
            conv.weight.zero_()
            middle = conv.kernel_size[0] // 2
            conv.weight[0, 0, middle, middle] = 1
    return network


@pytest.fixture(scope="module")
def crops(photographs):
    """Sides that are no multiples of 2 and 3."""
    return [(name, np.ascontiguousarray(luma[96:203, 96:225])) for name, luma in photographs]


@pytest.fixture(scope="module")
def untouched(crops):
    steps = steps_of(srcnn_enlarger(passing_srcnn()))
    return downstream(identity, steps, crops, "crops", [10, 40])


def test_a_network_that_changes_nothing_leaves_every_step_as_it_was(untouched):
    assert set(untouched.steps) == set(STEPS)
    for step in STEPS:
        for qf in (10, 40):
            assert untouched.gain(step, qf) == 0
            assert untouched.gain(step, qf, "ssim") == 0


def test_a_network_that_returns_the_original_does_as_well_as_the_original(crops):
    steps = steps_of(None)
    answers = iter(
        source
        for _, luma in crops
        for source in (
            reduced(cropped(luma, 2), 2),
            reduced(cropped(luma, 3), 3),
            luma,
        )
    )
    found = downstream(lambda luma, table: next(answers), steps, crops, "crops", [10])
    for step in found.steps:
        for metric in ("psnr", "ssim"):
            best = found.mean(step, 10, ORIGINAL, metric)
            assert found.mean(step, 10, RESTORED, metric) == best
            assert found.mean(step, 10, JPEG, metric) < best


def test_values_are_those_of_the_stated_way_to_make_them(untouched, crops):
    name, luma = crops[0]
    scores = {
        (score.step, score.qf, score.given): score.metrics
        for score in untouched.per_image
        if score.image == name
    }
    large = luma[:106, :128]
    small = np.array(Image.fromarray(large).resize((64, 53), Image.Resampling.BICUBIC))
    jpeg = compress(small, 10)[0]
    again = np.array(Image.fromarray(jpeg).resize((128, 106), Image.Resampling.BICUBIC))
    assert scores["bicubic-x2", 10, JPEG]["psnr"] == psnr(large, again)
    assert scores["srcnn-x2", 10, JPEG]["psnr"] == psnr(large, again)
    curved = tone_curve(compress(luma, 40)[0])
    assert scores["tone-curve", 40, JPEG]["ssim"] == ssim(tone_curve(luma), curved)
    assert scores["tone-curve", 40, ORIGINAL]["psnr"] == MAX_DB


def test_super_resolution_of_originals_does_not_depend_on_the_quality_factor(untouched):
    for step in ("bicubic-x2", "bicubic-x3"):
        at = [untouched.mean(step, qf, ORIGINAL) for qf in (10, 40)]
        assert at[0] == at[1] < MAX_DB
        assert untouched.mean(step, 10, JPEG) < untouched.mean(step, 40, JPEG) < at[0]


def test_the_tone_curve_keeps_black_and_white_and_order_and_steepens_the_middle():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    curve = tone_curve(ramp).ravel().astype(int)
    assert (curve[0], curve[255]) == (0, 255)
    assert (np.diff(curve) >= 0).all()
    assert (curve + curve[::-1] == 255).all()
    assert curve[138] - curve[117] == pytest.approx(21 * 2.07, abs=1)


def test_equalising_spreads_a_flat_histogram_evenly_and_leaves_a_full_one():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.abs(equalised(ramp).astype(int) - ramp).max() <= 1
    two = np.repeat(np.array([100, 101], np.uint8), 32).reshape(8, 8)
    assert set(equalised(two).ravel().tolist()) == {128, 255}


def test_local_contrast_leaves_a_plain_area_and_raises_an_edge():
    plain = np.full((64, 64), 90, np.uint8)
    assert (local_contrast(plain) == plain).all()
    edge = np.repeat(np.array([90, 130], np.uint8), 32)[None].repeat(64, 0)
    raised = local_contrast(edge).astype(int)
    assert raised[0, 32] - raised[0, 31] > 70


def test_reduced_images_are_cropped_to_a_multiple_at_the_lower_right():
    luma = np.arange(23 * 17, dtype=np.uint8).reshape(23, 17)
    assert (cropped(luma, 3) == luma[:21, :15]).all()
    assert reduced(cropped(luma, 3), 3).shape == (7, 5)
    assert enlarged(luma, 2).shape == (46, 34)


def test_the_typical_image_has_the_median_gain(untouched, crops):
    names = sorted(name for name, _ in crops)
    assert untouched.typical_image("tone-curve", 10) == names[1]  # all gain nothing


@pytest.mark.parametrize("qfs", [[], [0], [101]])
def test_quality_factors_outside_the_scale_are_refused(qfs, crops):
    with pytest.raises(ValueError, match="QFs from 1 to 100"):
        downstream(identity, steps_of(None), crops, "crops", qfs)


def test_images_and_numbers_that_are_not_there_are_refused(untouched, crops):
    with pytest.raises(ValueError, match="nothing: there is no image"):
        downstream(identity, steps_of(None), [], "nothing", [10])
    small = [("tiny.png", crops[0][1][:15, :40])]
    with pytest.raises(ValueError, match=r"tiny.png is 40x15: .* by 2, sides of 16"):
        downstream(identity, steps_of(None), small, "small", [10])
    with pytest.raises(ValueError, match=r"QF 30 .* choose of \['bicubic-x2'"):
        untouched.mean("bicubic-x2", 30, JPEG)


def test_the_table_has_a_row_for_each_image_step_and_input(untouched, crops):
    rows = untouched.rows()
    assert len(rows) == len(crops) * 2 * len(STEPS) * len(INPUTS)
    place = ("equalised", 10, JPEG)
    own = [r["psnr"] for r in rows if (r["step"], r["qf"], r["input"]) == place]
    assert sum(own) / len(own) == pytest.approx(untouched.mean("equalised", 10, JPEG))


def test_the_srcnn_that_ships_improves_what_the_bicubic_kernel_enlarged(photographs):
    def gain(network):
        enlarge, gains = srcnn_enlarger(network), []
        for _, luma in photographs:
            large = cropped(luma[:200, :200], 2)
            small = reduced(large, 2)
            gains.append(psnr(large, enlarge(small)) - psnr(large, enlarged(small, 2)))
        return sum(gains) / len(gains)

    assert gain(load_network(str(SRCNN_WEIGHTS))[1]) > 0.3
    assert abs(gain(passing_srcnn())) < 1e-9


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of an SRCNN that returns its input, and of another network."""
    folder = tmp_path_factory.mktemp("weights")
    srcnn, other = folder / "srcnn.safetensors", folder / "other.safetensors"
    save_weights(str(srcnn), passing_srcnn().state_dict(), get_recipe("srcnn-qf10"), step=1)
    recipe = get_recipe("quickres-qf10")
    network = build_model(recipe.architecture, recipe.options)
    save_weights(str(other), network.state_dict(), recipe, step=0)
    return srcnn, other


@pytest.mark.slow
def test_the_command_prints_tables_draws_pictures_and_refuses_bad_input(
    tmp_path, weights, photographs
):
    srcnn, other = weights
    (tmp_path / "photos").mkdir()
    Image.fromarray(photographs[0][1][96:384, 96:384]).save(tmp_path / "photos" / "detail.png")
    command = ("analyze", "downstream", ZOO / "quickres-qf10.safetensors", "--srcnn", srcnn)
    images = ("--dataset", "folder:photos", "--images", "1")
    table, answer, wrong, unknown, beyond, nothing = several(
        tmp_path,
        [
            (*command, *images, "--qf", "10", "-o", tmp_path / "here"),
            (*command, *images, "--qf", "10", "--json"),
            (*command[:-1], other, *images),
            (*command, "--dataset", "nix"),
            (*command, *images, "--qf", "0"),
            ("analyze", "downstream", "nowhere.safetensors", *images),
        ],
    )
    assert table.code == 0, table.err
    assert "PSNR in dB after each step: folder:photos, restored by quickres-qf10" in table.out
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {"downstream.csv", "gains.png", *(f"{step}-qf10.png" for step in STEPS)}
    for step in STEPS:
        with Image.open(tmp_path / "here" / f"{step}-qf10.png") as picture:
            assert picture.size[0] == 1408
    rows = {row["step"]: row for row in json.loads(answer.out)}
    assert set(rows) == set(STEPS)
    for row in rows.values():
        assert row["psnr_JPEG"] + 0.2 < row["psnr_restored"] < row["psnr_original"]
    assert rows["srcnn-x2"]["psnr_restored"] == rows["bicubic-x2"]["psnr_restored"]
    assert [one.code for one in (wrong, unknown, beyond, nothing)] == [2, 2, 2, 2]
    assert "is a QuickRes: give weights of an SRCNN" in " ".join(wrong.err.split())
    assert "live1, classic5" in " ".join(unknown.err.split())
    assert "greater than or equal to 1" in " ".join(beyond.err.split())
    assert "nowhere.safetensors" in nothing.err
