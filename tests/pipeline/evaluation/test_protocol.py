"""Evaluation gives the published JPEG rows, exact keys, and measures the restorer alone."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from flows.commands import evaluate_networks
from flows.console import print_json
from pipeline.datasets import references
from pipeline.evaluation.protocol import (
    compare,
    evaluate,
    jpeg_table,
    load_images,
    main,
    network_restorer,
    score,
)
from pipeline.evaluation.scores import scores_csv
from pipeline.images.degrade import before_jpeg
from pipeline.images.jpeg import compress, quantization_table
from pipeline.images.metrics import METRICS, psnr
from storage import files
from tests.support.project import PROJECT

KEYS = [
    "dataset",
    "qf",
    "images",
    "psnr",
    "ssim",
    "ssim_gaussian",
    "psnr_b",
    "bpp",
    "seconds_per_mpx",
]


@pytest.fixture(scope="module")
def crops() -> list[tuple[str, np.ndarray]]:
    camera = data.camera()
    return [
        ("left", np.ascontiguousarray(camera[100:180, 150:270])),
        ("right", np.ascontiguousarray(camera[200:264, 200:260])),
    ]


def smoothed(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
    blur = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return network_restorer(blur)(luma, table)


def test_jpeg_on_classic5_scores_what_the_papers_print(datasets_root):
    sources = references.list_images("classic5", root=datasets_root, purpose="evaluate")
    result = evaluate(None, load_images(sources), "classic5", [10])
    row = result.row(10).as_json_row()
    assert row["images"] == 5
    assert f"{row['psnr']:.2f}" == "27.82"
    assert f"{row['ssim']:.3f}" == "0.780"
    assert f"{row['ssim_gaussian']:.4f}" == "0.7595"
    assert f"{row['psnr_b']:.2f}" == "25.21"
    assert f"{row['bpp']:.3f}" == "0.298"


def test_a_network_is_scored_in_three_lines(datasets_root):
    table = score(nn.Identity(), "classic5", 10, root=datasets_root)
    assert table.restored.row(10).metrics == table.jpeg.row(10).metrics
    assert "27.82" in str(table)
    assert "+0.00" in str(table)


def test_a_json_row_has_exactly_the_promised_keys_in_order(crops):
    result = evaluate(smoothed, crops, "two", [10, 30])
    rows = [row.as_json_row() for row in result.rows]
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_the_mean_is_over_the_images_and_every_image_is_kept(crops):
    result = evaluate(smoothed, crops, "two", [30, 10])
    assert [row.qf for row in result.rows] == [30, 10]
    assert len(result.per_image) == 4
    table = jpeg_table(10)
    expected = [psnr(luma, smoothed(compress(luma, 10)[0], table)) for _, luma in crops]
    assert [s.metrics["psnr"] for s in result.per_image if s.qf == 10] == expected
    assert result.row(10).metrics["psnr"] == pytest.approx(np.mean(expected))
    sizes = [8 * compress(luma, 10)[1] / luma.size for _, luma in crops]
    assert result.row(10).bpp == pytest.approx(np.mean(sizes))


def test_the_clock_runs_for_the_restorer_alone(crops, monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("pipeline.evaluation.protocol.time", clock)

    def restorer(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        clock.now += 0.5
        return luma

    def slowly_read():
        for image in crops:
            clock.now += 1000
            yield image

    result = compare(restorer, slowly_read(), "two", [10, 20])
    pixels = sum(luma.size for _, luma in crops)
    assert [score.seconds for score in result.restored.per_image] == [0.5] * 4
    assert result.restored.row(10).seconds_per_mpx == pytest.approx(1 / pixels * 1e6)
    assert result.jpeg.row(10).seconds_per_mpx == 0


def test_a_restorer_gets_the_table_of_the_quality_factor_it_is_scored_at(crops):
    seen: list[np.ndarray] = []

    def restorer(luma: np.ndarray, table: np.ndarray) -> np.ndarray:
        seen.append(table)
        return luma

    evaluate(restorer, crops[:1], "one", [10, 40])
    assert {table.dtype for table in seen} == {np.dtype(np.uint8)}
    warm_up, *tables = seen
    np.testing.assert_array_equal(warm_up, quantization_table(10))
    for table, qf in zip(tables, [10, 40], strict=True):
        np.testing.assert_array_equal(table, quantization_table(qf))


def test_a_rescaled_evaluation_compares_the_reduced_photos(crops):
    result = evaluate(None, crops, "two", [10], "rescaled")
    found = [before_jpeg(luma, "rescaled") for _, luma in crops]
    expected = [psnr(pair.original, compress(pair.source, 10)[0]) for pair in found]
    assert [one.metrics["psnr"] for one in result.per_image] == expected
    assert [one.pixels for one in result.per_image] == [40 * 60, 32 * 30]
    assert result.per_image[0].bpp == 8 * compress(found[0].source, 10)[1] / 2400


def test_a_rescaled_result_is_marked_wherever_it_stands(crops):
    comparison = compare(smoothed, crops, "two", [10], "rescaled")
    assert comparison.restored.degradation == comparison.jpeg.degradation == "rescaled"
    assert comparison.restored.label == "two rescaled"
    assert "two rescaled QF10" in str(comparison)
    row = comparison.restored.row(10).as_json_row()
    assert [*row] == [*KEYS, "degradation"]
    assert (row["dataset"], row["degradation"]) == ("two", "rescaled")
    table = csv.DictReader(scores_csv([comparison.restored]).decode().splitlines())
    assert {line["dataset"] for line in table} == {"two rescaled"}


def test_an_image_that_is_too_small_when_rescaled_is_left_out(crops, caplog):
    tiny = ("tiny", np.zeros((14, 40), np.uint8))
    result = evaluate(None, [*crops, tiny], "three", [10], "rescaled")
    assert [one.image for one in result.per_image] == ["left", "right"]
    assert "tiny is left out of the evaluation: too small: 20x7 when rescaled" in caplog.text


def test_the_mean_over_quality_factors_gives_each_the_same_weight(crops):
    result = evaluate(None, crops, "two", [10, 20, 40])
    means = result.mean_over([10, 40])
    for name in METRICS:
        assert means[name] == pytest.approx(
            (result.row(10).metrics[name] + result.row(40).metrics[name]) / 2
        )
    with pytest.raises(ValueError, match="QF 30 was not evaluated"):
        result.mean_over([10, 30])
    with pytest.raises(ValueError, match="one or more QFs"):
        result.mean_over([])


def test_the_gain_is_the_restored_mean_less_the_jpeg_mean(crops):
    result = compare(smoothed, iter(crops), "two", [10])
    before, after = evaluate(None, crops, "two", [10]), result.restored
    for name in METRICS:
        expected = after.row(10).metrics[name] - before.row(10).metrics[name]
        assert result.gain(10, name) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"metric 'lpips': choose one of \['psnr'"):
        result.gain(10, "lpips")
    with pytest.raises(ValueError, match=r"QF 20 was not evaluated on two: .*\[10\]"):
        result.gain(20)


def test_the_table_holds_every_image_and_the_mean(crops):
    result = evaluate(smoothed, crops, "two", [10, 20])
    rows = list(csv.DictReader(scores_csv([result]).decode().splitlines()))
    assert [row["image"] for row in rows] == ["left", "right", "(mean)"] * 2
    for row in (rows[2], rows[5]):
        mean = result.row(int(row["qf"]))
        assert float(row["psnr_b"]) == mean.metrics["psnr_b"]
        assert float(row["bpp"]) == mean.bpp
    assert float(rows[1]["ssim"]) == result.per_image[2].metrics["ssim"]


def test_a_network_from_outside_is_moved_and_scored_at_8x8(tmp_path):
    rng = np.random.default_rng(0)
    tiny = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(tiny).save(tmp_path / "tiny.png")
    table = score(nn.Conv2d(1, 1, 3, padding=1), f"folder:{tmp_path}", [10, 90], device="cpu")
    assert [row.images for row in table.restored.rows] == [1, 1]
    assert table.jpeg.row(10).metrics["psnr"] == psnr(tiny, compress(tiny, 10)[0])


def test_images_that_cannot_be_scored_are_left_out_and_named(tmp_path, crops, caplog):
    Image.fromarray(crops[0][1]).save(tmp_path / "good.png")
    Image.fromarray(np.zeros((7, 20), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    sources = references.list_images(f"folder:{tmp_path}", root=tmp_path, purpose="evaluate")
    missing = references.SourceImage(name="gone.png", uri=str(tmp_path / "gone.png"))
    images = list(load_images([*sources, missing]))
    assert [Path(name).name for name, _ in images] == ["good.png"]
    told = [record.getMessage() for record in caplog.records]
    assert [message.partition(" ")[0] for message in told] == [
        "broken.png",
        "small.png",
        "gone.png",
    ]
    assert told[1].endswith("left out of the evaluation: too small: 20x7, 8x8 needed")


def test_bad_questions_are_refused_with_the_choices(crops):
    for qfs in ([], [0], [10, 101]):
        with pytest.raises(ValueError, match="choose one or more from 1 to 100"):
            evaluate(None, crops, "two", qfs)
    with pytest.raises(ValueError, match="two: there is no image to evaluate"):
        evaluate(None, [], "two", [10])
    with pytest.raises(ValueError, match="differ in shape"):
        evaluate(lambda luma, table: luma[:-1], crops, "two", [10])
    with pytest.raises(ValueError, match=r"'patch': choose one of \['image', 'rescaled'\]"):
        evaluate(None, crops, "two", [10], "patch")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_pixels_of_the_cpu(crops):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 64, 9, padding=4), nn.ReLU(), nn.Conv2d(64, 1, 5, padding=2)
    )
    on_cpu = network_restorer(network, "cpu")(crops[0][1], jpeg_table(10))
    on_gpu = network_restorer(network, "cuda")(crops[0][1], jpeg_table(10))
    assert np.abs(on_cpu.astype(int) - on_gpu).max() <= 1
    assert (on_cpu != on_gpu).mean() < 1e-3


def test_the_module_scores_shipped_weights_from_the_command_line(caplog):
    weights = PROJECT / "models" / "zoo" / "quickres-qf10.safetensors"
    with caplog.at_level("INFO"):
        main([str(weights), "--dataset", "sample:test"])
    gains = [line.split() for line in caplog.text.splitlines() if line.startswith("gain")]
    assert "sample:test QF10, " in caplog.text
    assert [float(gain[1]) > 0.5 for gain in gains] == [True]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.safetensors"], "nowhere.safetensors is missing"),
        (["{weights}", "--dataset", "classic6"], "'classic6' is unknown"),
        (["{weights}", "--dataset", "live1"], "live1 is looked for in the datasets' folder"),
    ],
)
def test_the_module_says_what_is_wrong(arguments, told, capsys):
    weights = PROJECT / "models" / "zoo" / "quickres-qf10.safetensors"
    with pytest.raises(SystemExit) as ended:
        main([word.format(weights=weights) for word in arguments])
    assert ended.value.code == 1
    assert told in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path, crops) -> str:
    """A folder of two small photographs, as a reference."""
    for name, luma in crops:
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(luma).save(tmp_path / "photos" / f"{name}.png")
    return f"folder:{tmp_path / 'photos'}"


@pytest.mark.slow
def test_a_report_that_cannot_be_written_loses_no_scores(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    table, page = tmp_path / "scores.csv", f"{tmp_path}/file/report.html"
    code = evaluate_networks.evaluate(
        "jpeg", dataset=[photos], qf=[10], json=True, csv=str(table), report=page
    )
    told = capsys.readouterr()
    assert code == 1
    assert json.loads(told.out)[0]["images"] == 2
    assert len(table.read_text().splitlines()) == 1 + 2 + 1
    assert f"WARNING: no report at {page}" in told.err


@pytest.mark.slow
def test_a_report_goes_to_a_bucket_as_the_table_does(photos, capsys):
    places = ["memory://reports/scores.csv", "memory://reports/page.html"]
    code = evaluate_networks.evaluate(
        "jpeg", dataset=[photos], qf=[10], csv=places[0], report=places[1]
    )
    assert code == 0
    assert files.read_bytes(places[0]).startswith(b"dataset,qf,image")
    assert b"Evaluation of JPEG" in files.read_bytes(places[1])
    assert "report memory://reports/page.html" in capsys.readouterr().err


def test_json_has_no_number_that_json_does_not_know(capsys):
    print_json([{"psnr": float("inf"), "gain": float("nan"), "bpp": 0.5}])
    assert json.loads(capsys.readouterr().out) == [{"psnr": None, "gain": None, "bpp": 0.5}]
