"""Tables that people read: our rows beside the published ones, in 100 columns."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from skimage import data

from flows import console
from flows.planning.named_networks import OpenNetwork, open_network, registered_architecture
from flows.reporting.score_tables import SPARE, result_rows, score_rows
from models import ARCHITECTURES
from pipeline.evaluation.protocol import compare
from pipeline.evaluation.scores import Comparison
from pipeline.images.degrade import Protocol
from storage.registry.model_registry import RegisteredVersion


def compared(dataset: str, qfs: list[int], degradation: Protocol = "image") -> Comparison:
    image = np.ascontiguousarray(data.camera()[100:164, 150:230])
    return compare(lambda luma, table: luma, [("a", image)], dataset, qfs, degradation)


def test_published_rows_follow_the_gain_and_are_compared_in_their_own_ssim_family():
    rows = score_rows("mine", compared("live1", [10]), "arcnn")
    names = [row[""] for row in rows]
    assert names[:3] == ["JPEG", "mine", "gain"]
    assert names[4] == names[6] == names[8] == "difference"
    mine, uniform, gaussian = rows[1], rows[4], rows[8]
    assert rows[6]["psnr"] == "", "the paper's row has PSNR-B alone"
    assert uniform["ssim_gaussian"] == gaussian["ssim"] == gaussian["psnr_b"] == ""
    assert isinstance(mine["psnr"], float)
    assert uniform["psnr"] == pytest.approx(mine["psnr"] - 29.13, abs=0.011)
    assert gaussian["psnr"] == pytest.approx(mine["psnr"] - 28.96, abs=0.011)
    assert all([*row] == [*rows[0]] for row in rows)


@pytest.mark.parametrize("degradation", ["image", "rescaled"])
def test_nothing_published_stands_beside_another_degradation(degradation):
    rows = score_rows("mine", compared("live1", [10], degradation), "arcnn")
    assert len(rows) == (9 if degradation == "image" else 3)
    assert {row["set"] for row in rows} == {"live1" if degradation == "image" else "live1 rescaled"}


@pytest.mark.parametrize(
    ("architecture", "dataset", "label"),
    [
        ("arcnn", "live1", "arcnn-rescaled-qf10"),
        ("dncnn", "live1", "dncnn-fast-qf10"),
        ("cascnn", "live1", "cascnn-fast-qf10"),
        ("ddcn", "bsds500:test", "ddcn-fast-qf10"),
    ],
)
def test_a_table_stands_in_100_columns_without_a_broken_line(
    architecture, dataset, label, monkeypatch
):
    paper = Console(width=100)
    monkeypatch.setattr(console, "out", paper)
    rows = result_rows(label, compared(dataset, [10]).restored, architecture)
    with paper.capture() as capture:
        console.show_table(rows, "a network")
    _, heading, *lines = capture.get().rstrip().splitlines()
    assert len(lines) == len(rows)
    assert max(map(len, [heading, *lines])) <= 100


@pytest.mark.parametrize("width", [100, 80, 60, 50])
def test_no_number_and_no_name_is_broken_however_narrow(width, monkeypatch):
    paper = Console(width=width, soft_wrap=True)
    monkeypatch.setattr(console, "out", paper)
    rows = result_rows("arcnn-rescaled-qf10", compared("live1", [10]).restored, "arcnn")
    with paper.capture() as capture:
        console.show_table(rows, "a network", spare=SPARE)
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= width
    assert "arcnn-rescaled-qf10, 1 image" in shown
    for row in rows:
        assert f"{row['psnr']:.2f}" in shown.split() if row["psnr"] != "" else True


def test_of_two_columns_a_long_value_stays_in_one_piece_on_its_line(monkeypatch):
    paper = Console(width=40, soft_wrap=True)
    monkeypatch.setattr(console, "out", paper)
    rows = [{"tag": "recipe", "value": "quickres"}, {"tag": "weights", "value": "/a[1]" * 20}]
    with paper.capture() as capture:
        console.show_table(rows, "tags")
    lines = capture.get().splitlines()
    assert lines == ["tags", "recipe   quickres", f"weights  {'/a[1]' * 20}"]


def test_jpeg_itself_has_its_own_published_rows():
    assert open_network("jpeg") == OpenNetwork(restorer=None, architecture="jpeg", label="JPEG")
    rows = result_rows("JPEG", compared("classic5", [10]).jpeg, "jpeg")
    assert [row[""] for row in rows] == ["JPEG, 1 image", "JPEG (the papers)", "difference"]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("label", ["qf10", "blind", "rescaled-qf20"])
def test_a_registered_model_tells_its_architecture_by_tag_or_by_name(architecture, label):
    name = f"qfactory-{architecture}-{label}"
    version = RegisteredVersion(name=name, version=1, tags={}, run_id=None)
    assert registered_architecture(version) == architecture
    tagged = replace(version, name="other", tags={"architecture": architecture})
    assert registered_architecture(tagged) == architecture
    assert registered_architecture(replace(version, name="other")) is None
