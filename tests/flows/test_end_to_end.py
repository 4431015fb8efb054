"""The main job as a user runs it: real images, little training, a gain, a usable model."""

import json
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest

from flows.commands import evaluate_networks
from flows.settings import settings
from storage.registry.model_registry import ModelRegistry
from storage.tracking.mlflow_client import open_client
from tests.support.commands import QFACTORY

pytestmark = pytest.mark.slow

STUDY = (
    "study", "--dataset", "bsds500:val", "--recipes", "quickres-qf10", "--steps", "400",
    "--evaluate-on", "classic5", "--name", "end-to-end",
)  # fmt: skip
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "mlflow-5ecret",
    "AWS_ACCESS_KEY_ID": "s3-5ecret-name",
    "AWS_SECRET_ACCESS_KEY": "s3-5ecret",
    "PREFECT_API_AUTH_STRING": "me:prefect-5ecret",
    "PREFECT_SERVER_API_AUTH_STRING": "me:prefect-5ecret",
    "RAY_AUTH_TOKEN": "ray-5ecret" * 4,
}
CONSUMER = """
import json, sys
import mlflow, numpy as np
for name in ("models", "pipeline", "storage", "flows"):
    sys.modules[name] = None
mlflow.set_tracking_uri(sys.argv[1])
network = mlflow.pyfunc.load_model("models:/qfactory-quickres-qf10@champion")
shapes = [(1, 1, 8, 8), (3, 1, 33, 47), (2, 1, 57, 64)]
rng = np.random.default_rng(0)
results = [network.predict(rng.random(shape, dtype=np.float32)) for shape in shapes]
assert all(0 <= r.min() and r.max() <= 1 for r in results)
print(json.dumps([list(r.shape) for r in results]))
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("end-to-end")


@pytest.fixture(scope="module")
def ray_folder():
    """Where Ray keeps its logs; sockets allow no long path."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def first_study(workspace, datasets_root, ray_folder):
    """What the first study printed, which was given every secret there is."""
    settings = {"QFACTORY_REPORT_SECONDS": "2", "MLFLOW_TRACKING_USERNAME": "me"}
    ray = {"RAY_TMPDIR": str(ray_folder), "RAY_AUTH_MODE": "token"}
    return qfactory(workspace, datasets_root, *STUDY, **settings, **ray, **SECRETS)


def qfactory(workspace, datasets_root, *arguments, **variables):
    """Run the command line; return stdout and stderr."""
    environment = {
        **os.environ,
        "QFACTORY_WORKSPACE": str(workspace),
        "QFACTORY_DATASETS": str(datasets_root),
        **variables,
    }
    done = subprocess.run(
        [QFACTORY, *arguments], env=environment, cwd=workspace, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def mlflow_uri(workspace):
    return f"sqlite:///{workspace}/mlflow.db"


def test_a_little_training_beats_jpeg_on_classic5(workspace, datasets_root, first_study):
    assert "store built" in first_study
    champion = ModelRegistry(mlflow_uri(workspace)).champion("qfactory-quickres-qf10")
    assert champion is not None
    scores = {name: row for name, (row,) in json.loads(champion.tags["scores"]).items()}
    assert scores["classic5"]["psnr"] > 27.82 + 0.5
    assert scores["classic5"]["ssim"] > 0.7800
    assert scores["classic5"]["psnr_b"] > 25.21 + 1


def test_the_jpeg_row_is_the_published_one(first_study):
    rows = [line.split() for line in first_study.splitlines()]
    assert [row for row in rows if row[2:3] == ["JPEG"]] == [
        ["classic5", "10", "JPEG", "27.82", "0.7800", "0.7595", "25.21"],
    ]


def test_the_report_has_every_section_with_its_chart(workspace, first_study):
    page = workspace / "reports" / "end-to-end" / "report.html"
    assert f"Report:   {page}" in first_study
    assert re.findall("<h2>([^<$]+)</h2>", page.read_text()) == [
        "Results", "Before and after", "Gain of each image", "Quality and cost",
        "Rate and distortion", "Training", "How it was made",
    ]  # fmt: skip


def test_the_run_in_mlflow_tells_how_the_model_was_made(workspace, first_study):
    client = open_client(mlflow_uri(workspace))
    experiment = client.get_experiment_by_name("end-to-end")
    assert experiment is not None
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    run = runs["quickres-qf10"]
    assert run.data.tags["mlflow.parentRunId"] == runs["end-to-end"].info.run_id
    assert run.data.params["recipe"] == "quickres-qf10"
    assert run.data.params["steps"] == "400"
    assert run.data.metrics["classic5/qf10/psnr"] > run.data.metrics["classic5/qf10/jpeg_psnr"]
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert len(losses) > 5
    assert losses[-1].value < losses[0].value
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "bsds500:val"
    files = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert {"evaluation", "pictures", "recipe.json"} <= files
    assert not (workspace / "mlruns").exists()


def test_no_secret_is_in_what_a_study_writes_or_says(workspace, ray_folder, first_study):
    shown = [value.encode() for value in SECRETS.values()]
    shown += [value.partition(":")[2].encode() for value in SECRETS.values() if ":" in value]
    shown += [b64encode(value) for value in shown]
    written = [p for root in (workspace, ray_folder) for p in root.rglob("*") if p.is_file()]
    assert {
        "mlflow.db", "prefect.db", "report.html", "state.json", "weights.safetensors", "CURRENT",
        "MLmodel", "raylet.out", "gcs_server.out",
    } <= {path.name for path in written}  # fmt: skip
    texts = {str(path): path.read_bytes() for path in written} | {"": first_study.encode()}
    assert [(name, one) for name, text in texts.items() for one in shown if one in text] == []


def test_a_consumer_without_the_project_loads_the_champion_and_restores_any_size(
    workspace, tmp_path, first_study
):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"
    }
    done = subprocess.run(
        [sys.executable, "-I", "-c", CONSUMER, mlflow_uri(workspace)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [1, 1, 8, 8],
        [3, 1, 33, 47],
        [2, 1, 57, 64],
    ]


def test_the_same_study_again_reuses_store_training_and_model(
    workspace, datasets_root, first_study
):
    settings = {"QFACTORY_REPORT_SECONDS": "0", "QFACTORY_LOG_FORMAT": "json"}
    again = qfactory(workspace, datasets_root, *STUDY, "--timings", **settings)
    assert "store reused" in again
    assert "quickres-qf10 was scored on these images of classic5: the scores are reused" in again
    lines = [json.loads(line) for line in again.splitlines() if line.startswith("{")]
    again_done = ("evaluate quickres-qf10 on", "trained ")
    assert not any(line["message"].startswith(again_done) for line in lines)
    (reused,) = (line for line in lines if line["message"].startswith("reused quickres-qf10"))
    assert (reused["flow_run"], reused["recipe"]) == ("end-to-end", "quickres-qf10")
    assert {line["task_run"].split()[0] for line in lines if "task_run" in line} >= {"build"}
    timings = again[again.index("where the time went") :]
    assert re.search(r"\d+\.\d s +\d+ %  import programs\n", timings)
    assert "start Ray" not in timings
    assert "reused quickres-qf10: models:/qfactory-quickres-qf10/1 has the same" in again
    versions = ModelRegistry(mlflow_uri(workspace)).versions("qfactory-quickres-qf10")
    assert [v.version for v in versions] == [1]


def test_the_registered_model_scores_the_same_as_the_training_said(
    workspace, datasets_root, first_study, monkeypatch, capsys
):
    monkeypatch.setenv("QFACTORY_WORKSPACE", str(workspace))
    monkeypatch.setenv("QFACTORY_DATASETS", str(datasets_root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings.cache_clear()
    name = "qfactory-quickres-qf10@champion"
    assert evaluate_networks.evaluate(name, dataset=["classic5"], qf=[10], json=True) == 0
    settings.cache_clear()
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row) == [
        "dataset", "qf", "images", "psnr", "ssim", "ssim_gaussian", "psnr_b", "bpp",
        "seconds_per_mpx", "published",
    ]  # fmt: skip
    champion = ModelRegistry(mlflow_uri(workspace)).champion("qfactory-quickres-qf10")
    assert champion is not None
    (said,) = json.loads(champion.tags["scores"])["classic5"]
    assert row["psnr"] == pytest.approx(said["psnr"], abs=1e-3)
