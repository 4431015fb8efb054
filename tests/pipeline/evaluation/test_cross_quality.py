"""Networks of one quality factor on JPEGs of others: numbers, invariants, the command."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from flows.commands.analysis_inputs import NamedNetwork
from flows.commands.analyze_networks import by_trained_qf, transfer
from models import build_model
from pipeline.evaluation import protocol
from pipeline.evaluation.cross_quality import transfer_chart, transfer_matrix
from pipeline.images.metrics import MAX_DB
from pipeline.networks.weights import save_weights
from pipeline.recipes import get_recipe
from storage import files
from tests.support.commands import several
from tests.support.project import PROJECT

ZOO = PROJECT / "models" / "zoo"


def identity(luma, table):
    return luma


def brighter(luma, table):
    """A network that shifts every pixel by what its input's table says."""
    return np.clip(luma.astype(int) + int(table[0, 0]) // 8, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def crops(photographs):
    return [(name, np.ascontiguousarray(luma[96:176, 96:192])) for name, luma in photographs]


@pytest.fixture(scope="module")
def found(crops):
    return transfer_matrix({20: brighter, 10: identity}, crops, "crops", [10, 20, 40])


def test_a_cell_is_the_gain_that_an_evaluation_of_that_network_finds(found, crops):
    for trained, restorer in ((10, identity), (20, brighter)):
        alone = protocol.compare(restorer, crops, "crops", [10, 20, 40])
        for qf in (10, 20, 40):
            assert found.gain(trained, qf) == alone.gain(qf)
            assert found.gain(trained, qf, "ssim") == alone.gain(qf, "ssim")


def test_a_network_that_changes_nothing_has_a_row_of_zeros(found):
    assert [found.gain(10, qf) for qf in found.input_qfs] == [0.0, 0.0, 0.0]
    assert found.restored[10].rows[0].metrics == found.jpeg.rows[0].metrics
    assert found.gain(20, 10) < 0


def test_a_network_that_knows_the_original_reaches_the_best_there_is(crops):
    originals = iter([luma for _, luma in crops for _ in (10, 20)])
    answers = {"warm-up": True}

    def oracle(luma, table):
        if answers.pop("warm-up", False):
            return luma
        return next(originals)

    matrix = transfer_matrix({10: oracle}, crops, "crops", [10, 20])
    of_jpeg = matrix.jpeg.row(20).metrics["psnr"]
    assert matrix.gain(10, 20) == pytest.approx(MAX_DB - of_jpeg)


def test_every_jpeg_is_made_once_for_all_networks(crops, monkeypatch):
    made = []
    compress = protocol.jpeg.compress

    def counting(luma, qf):
        made.append(qf)
        return compress(luma, qf)

    monkeypatch.setattr(protocol.jpeg, "compress", counting)
    transfer_matrix(dict.fromkeys((10, 20, 30), identity), crops, "crops", [10, 40])
    assert sorted(made) == [10] * len(crops) + [40] * len(crops)


def test_the_chart_has_a_cell_for_each_network_and_input(found):
    chart = transfer_chart(found)
    (rows,) = (
        chart.spec["datasets"].values()
        if "datasets" in chart.spec
        else [chart.spec["data"]["values"]]
    )
    cells = {(row["x"], row["y"]): row["value"] for row in rows}
    assert cells == found.gains()
    assert cells[40, 20] == found.gain(20, 40)
    assert len(cells) == 6


@pytest.mark.parametrize(
    ("restorers", "qfs", "told"),
    [
        ({}, [10], "one or more"),
        ({0: identity}, [10], "from 1 to 100"),
        ({10: identity}, [], "one or more from 1 to 100"),
        ({10: identity}, [101], "one or more from 1 to 100"),
    ],
)
def test_what_makes_no_matrix_is_refused(restorers, qfs, told, crops):
    with pytest.raises(ValueError, match=told):
        transfer_matrix(restorers, crops, "crops", qfs)


def test_a_network_that_was_not_scored_is_refused_by_those_that_were(found):
    with pytest.raises(ValueError, match=r"QF 30 .* one of \[10, 20\]"):
        found.gain(30, 10)


def test_networks_are_ordered_by_the_quality_factor_they_were_trained_for():
    networks = [NamedNetwork(name=f"n{qf}", restorer=identity, qfs=(qf,)) for qf in (40, 10)]
    assert list(by_trained_qf(networks)) == [10, 40]
    for qfs, told in (((), "unknown QFs"), ((10, 20), "trained for 10 20"), ((40,), "both")):
        with pytest.raises(ValueError, match=told):
            by_trained_qf([*networks, NamedNetwork(name="x", restorer=identity, qfs=qfs)])


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Recipe -> weights of its network as it starts, which returns its input."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    found = {}
    for name in ("quickres-qf20", "quickres-blind"):
        recipe = get_recipe(name)
        network = build_model(recipe.architecture, recipe.options)
        found[name] = folder / f"{name}.safetensors"
        save_weights(str(found[name]), network.state_dict(), recipe, step=0)
    return found


@pytest.mark.slow
def test_the_command_prints_writes_and_draws_the_matrix_and_refuses_what_makes_none(
    tmp_path, fresh
):
    trained, start = ZOO / "quickres-qf10.safetensors", fresh["quickres-qf20"]
    images = ("--dataset", "sample", "--images", "1")
    command = ("analyze", "transfer")
    table, answer, *refused = several(
        tmp_path,
        [
            (*command, trained, start, *images, "--qf", "10", "20", "-o", tmp_path / "here"),
            (*command, trained, start, *images, "--qf", "10", "--json"),
            (*command, trained, fresh["quickres-blind"], *images),
            (*command, trained, trained, *images),
            (*command, "jpeg", *images),
            (*command, trained, "--dataset", "nix"),
            (*command, trained, *images, "--qf", "101"),
            (*command, trained, "--dataset", "sample", "--images", "0"),
        ],
    )
    assert table.code == 0, table.err
    assert "quickres-qf20  QF 20        +0.00  +0.00" in table.out
    with Image.open(tmp_path / "here" / "transfer.png") as chart:
        assert chart.size[0] > 300
    with (tmp_path / "here" / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trained_qf"], row["qf"]) for row in rows] == [
        ("10", "10"), ("10", "20"), ("20", "10"), ("20", "20"),
    ]  # fmt: skip
    cells = json.loads(answer.out)
    assert [cell["network"] for cell in cells] == ["quickres-qf10", "quickres-qf20"]
    assert cells[0]["gain"] == pytest.approx(float(rows[0]["gain"]))
    assert cells[0]["gain"] > 0.5
    assert cells[1]["gain"] == 0.0
    assert [one.code for one in refused] == [2] * 6
    told = [" ".join(one.err.split()) for one in refused]
    assert "quickres-blind was trained for 5 10 15" in told[0]
    assert "each once" in told[1]
    assert "jpeg is measured anyway" in told[2]
    assert "live1, classic5" in told[3]
    assert "less than or equal to 100" in told[4]
    assert "greater than or equal to 1" in told[5]


def test_the_files_of_an_analysis_go_to_a_bucket(tmp_path, capsys):
    luma = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(luma).save(tmp_path / "noise.png")
    network = str(ZOO / "quickres-qf10.safetensors")
    place = "memory://analyses/transfer"
    transfer(network, dataset=f"folder:{tmp_path}", qf=[10], output=place, json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert files.read_bytes(f"{place}/transfer.png").startswith(b"\x89PNG")
    (line,) = csv.DictReader(files.read_bytes(f"{place}/transfer.csv").decode().splitlines())
    assert float(line["gain"]) == row["gain"]
