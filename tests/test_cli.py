"""The command line as people type it: answers, refusals, exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.tracking import open_client
from tests.processes import ray_processes
from tests.store_images import build, image_folder

pytestmark = pytest.mark.slow

QFACTORY = str(Path(sys.executable).with_name("qfactory"))


@pytest.fixture
def qfactory(tmp_path):
    """Run a command in a workspace of its own."""

    def run(*arguments, **variables):
        return subprocess.run(
            [QFACTORY, *map(str, arguments)],
            cwd=tmp_path, env=environment(tmp_path, **variables), capture_output=True, text=True,
        )  # fmt: skip

    return run


def environment(folder, **variables):
    foreign = ("QFACTORY_", "PREFECT_", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "QFACTORY_WORKSPACE": str(folder / "workspace"), **variables}


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("evaluate", "jpeg", "--dataset", "nix", "--qf", "10"), "live1, classic5, div2k"),
        (("evaluate", "jpeg", "--dataset", "sample", "--qf", "0"), "greater than or equal to 1"),
        (("evaluate", "jpeg", "--dataset", "sample:nix", "--qf", "10"), "choose train, test"),
        (("recipes", "show", "nix"), "quickres-qf10"),
        (("patches", "inspect", "nowhere"), "qfactory patches build"),
        (("datasets", "fetch", "nix"), "live1, classic5, div2k"),
        (("nonsense",), "study, train, evaluate, patches"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_way_out(qfactory, command, told):
    done = qfactory(*command)
    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("study", "--recipes", "nix"), "quickres-qf10"),
        (("study", "--steps", "0"), "greater than or equal to 1"),
        (("patches", "build", "--side", "33"), "multiple of 8"),
        (("train", "quickres-qf10"), "there is no patch store"),
        (("study", "--evaluate-on", "live1"), "qfactory datasets fetch live1"),
    ],
)
def test_a_flow_refuses_bad_parameters_before_it_does_anything(qfactory, tmp_path, command, told):
    done = qfactory(*command)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "workspace" / "stores").exists()
    assert not (tmp_path / "workspace" / "checkpoints").exists()


def test_evaluate_prints_exactly_the_stated_json(qfactory, tmp_path):
    done = qfactory(
        "evaluate", "jpeg", "--dataset", "sample", "--qf", 10, 20, "--json", "--csv", "out.csv"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [list(row) for row in rows] == [
        ["dataset", "qf", "images", "psnr", "ssim", "ssim_gaussian", "psnr_b", "bpp",
         "seconds_per_mpx"]
    ] * 2  # fmt: skip
    assert [row["qf"] for row in rows] == [10, 20]
    assert rows[0]["psnr"] < rows[1]["psnr"]
    table = (tmp_path / "out.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * (3 + 1)


def test_datasets_and_recipes_are_listed(qfactory):
    assert "classic5" in qfactory("datasets", "list").stdout
    assert "arcnn-qf20" in qfactory("recipes", "list").stdout
    shown = json.loads(qfactory("recipes", "show", "arcnn-qf10").stdout)
    assert shown["init_from"] == {"recipe": "arcnn-qf20", "layers": 1}
    assert "11 files as pinned" in qfactory("datasets", "verify", "sample").stdout


def test_a_store_is_listed_inspected_verified_and_cleaned(qfactory, tmp_path):
    stores = tmp_path / "workspace" / "stores"
    photos = image_folder(tmp_path / "photos", 6)
    (photos / "broken.png").write_bytes(b"no image")
    version = build(photos, stores / "clouds", max_rejected_share=0.5).version
    assert "clouds" in qfactory("patches", "list").stdout
    inspected = qfactory("patches", "inspect", stores / "clouds").stdout
    assert f"{version.rows:,} of 32x32" in inspected
    assert "broken.png" in inspected
    (sheet,) = (tmp_path / "workspace" / "reports").glob("*.png")
    assert sheet.stat().st_size > 10_000
    assert "are whole" in qfactory("patches", "verify", stores / "clouds").stdout
    shard = next((stores / "clouds" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    damaged = qfactory("patches", "verify", stores / "clouds")
    assert damaged.returncode == 1
    assert "--repair" in damaged.stdout
    assert "removed 0 files" in qfactory("patches", "gc", stores / "clouds").stdout


def test_the_repair_command_that_is_printed_repairs(qfactory, tmp_path):
    stores = tmp_path / "workspace" / "stores"
    photos = image_folder(tmp_path / "photos", 6)
    build(photos, stores / "clouds")
    shard = next((stores / "clouds" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    printed = qfactory("patches", "verify", stores / "clouds").stdout
    (command,) = [line for line in printed.splitlines() if line.startswith("repair: ")]
    done = qfactory(*command.removeprefix("repair: qfactory ").split())
    assert done.returncode == 0, done.stderr
    assert "are whole" in qfactory("patches", "verify", stores / "clouds").stdout


def test_a_transfer_trains_the_recipe_it_starts_from_first(qfactory, tmp_path):
    done = qfactory("study", "--recipes", "arcnn-qf10", "--steps", 4)
    assert done.returncode == 0, done.stderr
    order = [line for line in done.stderr.splitlines() if line.startswith("trained ")]
    assert [line.split()[1] for line in order] == ["arcnn-qf20:", "arcnn-qf10:"]
    alone = qfactory("train", "arcnn-qf10", "--steps", 2)
    assert alone.returncode == 0, alone.stderr
    assert "models:/qfactory-arcnn-qf10/2" in alone.stdout
    refused = qfactory("train", "arcnn-qf10", "--initial-weights", tmp_path / "nothing")
    assert refused.returncode == 2
    assert "nothing is missing" in refused.stderr


def test_without_its_tracking_server_a_study_trains_and_says_what_was_not_recorded(
    qfactory, tmp_path
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = qfactory("study", "--steps", 20, MLFLOW_TRACKING_URI=away)
    assert done.returncode == 0, done.stderr
    assert "quickres-qf10: not registered, 20 steps" in done.stdout
    assert "WARNING not recorded in MLflow: start of run" in done.stdout
    (weights,) = (tmp_path / "workspace" / "checkpoints").glob("*/weights.safetensors")
    assert str(weights) in done.stdout
    scored = qfactory("evaluate", weights.parent, "--dataset", "sample", "--qf", 10, "--json")
    assert json.loads(scored.stdout)[0]["images"] == 3


def test_ctrl_c_ends_everything_and_the_same_command_goes_on(qfactory, tmp_path):
    study = ("study", "--steps", "300", "--name", "interrupted")
    process = subprocess.Popen(
        [QFACTORY, *study],
        cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may ignore it
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train quickres-qf10"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    told = process.stderr.read()
    assert process.wait(120) == 130
    assert "interrupted" in told
    client = open_client(f"sqlite:///{tmp_path}/workspace/mlflow.db")
    experiment = client.get_experiment_by_name("interrupted")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"KILLED"}
    assert ray_processes(tmp_path) == []
    done = qfactory(*study)
    assert done.returncode == 0, done.stderr
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    assert "quickres-qf10: models:/qfactory-quickres-qf10/1" in done.stdout
