"""What ships: recorded scores are those of the files, and a file that scores otherwise is told."""

import json
import re

import pytest

from flows.commands.models_shipped import DIFFERS
from flows.commands.models_shipped import shipped as show
from flows.planning import shipped_networks
from flows.planning.shipped_networks import recorded_rows, shipped_weights, training_of

NAME = "quickres-blind"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder of one shipped network, with its records."""
    for path in (
        shipped_networks.RECORD,
        shipped_networks.TRAININGS,
        *shipped_networks.ZOO.glob(f"{NAME}.*"),
    ):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(shipped_networks, "ZOO", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", shipped_weights())
def test_every_network_that_ships_says_how_it_was_trained_and_scores(name):
    assert {"steps", "minutes", "data", "processor"} <= set(training_of(name))
    scored = {row["dataset"]: row["qf"] for row in recorded_rows(name)}
    assert {"live1", "classic5", "sample:test"} <= set(scored)


@pytest.mark.parametrize("wrong_db", [0.0, 0.02])
def test_scores_are_made_again_and_held_against_the_record(zoo, capsys, wrong_db):
    record = zoo / f"{NAME}.json"
    rows = [row for row in json.loads(record.read_text()) if row["qf"] == 10]
    for row in rows:
        row["psnr"] += wrong_db
    record.write_text(json.dumps(rows))
    code = show(score=True, dataset=["sample:test"], json=True)
    (told,) = json.loads(capsys.readouterr().out)["scores"]
    assert told["set"] == "sample:test"
    assert told["difference"] == pytest.approx(-wrong_db, abs=0.005)
    assert code == (DIFFERS if wrong_db else 0)


def test_the_table_of_the_zoo_says_what_is_recorded():
    told, name = {}, ""
    for line in (shipped_networks.ZOO / "README.md").read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if re.fullmatch(r"(LIVE1|Classic5) \d+", cells[1] if len(cells) == 9 else ""):
            name = cells[0] or name
            dataset, qf = cells[1].split()
            told[name, dataset.lower(), int(qf)] = (cells[3], cells[5])
    assert {name for name, *_ in told} == set(shipped_weights())
    for (name, dataset, qf), (psnr, difference) in told.items():
        (row,) = (r for r in recorded_rows(name) if (r["dataset"], r["qf"]) == (dataset, qf))
        assert psnr == f"{row['psnr']:.2f}"
        papers = [paper["psnr"] for paper in row["published"] if paper["psnr"] is not None]
        assert difference == (f"{row['psnr'] - papers[0]:+.2f}" if papers else "")
