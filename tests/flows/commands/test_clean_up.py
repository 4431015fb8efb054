"""`qfactory gc`: what goes, what stays, and that nothing goes unless it is asked for."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.commands.clean_up import gc
from flows.settings import settings
from storage.checkpoints import checkpoint_steps, save_checkpoint
from storage.leases import held
from storage.patches.upkeep import verify
from storage.patches.versions import open_store
from tests.support.mlflow_servers import new_database
from tests.support.store_images import build, image_folder

DAYS_8 = 8 * 86400
WEIGHTS = b"weights"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An embedded workspace with a store and the tables of MLflow."""
    for name in ("MLFLOW_TRACKING_URI", "QFACTORY_STORES", "QFACTORY_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QFACTORY_WORKSPACE", str(tmp_path))
    settings.cache_clear()
    new_database(tmp_path)
    build(image_folder(tmp_path / "photos", 4), tmp_path / "stores" / "mine")
    yield tmp_path
    settings.cache_clear()


def collect(capsys, **options):
    """Run the command; return place -> why, and what it told of all."""
    capsys.readouterr()
    gc(json=True, **options)
    told = json.loads(capsys.readouterr().out)
    return {Path(row["what"]).name: row["why"] for row in told["places"]}, told


def written(path, content=b"x" * 1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def training(root, name):
    """The folder of a training with two checkpoints and its weights."""
    for step in (10, 20):
        save_checkpoint(str(root / "checkpoints" / name), step, {}, {})
    return written(root / "checkpoints" / name / "weights.safetensors", WEIGHTS).parent


def registered(client, weights, digest):
    client.create_registered_model("qfactory-test")
    tags = {"weights": str(weights), "weights_sha256": digest}
    client.create_model_version("qfactory-test", str(weights.parent), tags=tags)


def age(root, seconds=DAYS_8):
    then = time.time() - seconds
    for path in root.rglob("*"):
        os.utime(path, (then, then))


def run_with_a_file(client, root, end=True):
    """A deleted run with an artifact of 1,000 bytes."""
    experiment = client.create_experiment(f"e{end}", (root / "artifacts").as_uri())
    run = client.create_run(experiment, start_time=int(1000 * (time.time() - 2 * DAYS_8)))
    client.log_artifact(run.info.run_id, str(written(root / "photos" / "report.html")))
    ended = int(1000 * (time.time() - (DAYS_8 if end else 0)))
    client.set_terminated(run.info.run_id, end_time=ended)
    client.delete_run(run.info.run_id)
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_what_nothing_needs_is_told_with_its_size_and_removed_when_asked(workspace, capsys):
    client = MlflowClient(settings().mlflow_uri)
    done, rival, going_on = (training(workspace, name) for name in ("done", "rival", "going-on"))
    registered(client, done / "weights.safetensors", hashlib.sha256(WEIGHTS).hexdigest())
    left = written(going_on / "step-000000030" / ".tmp-1")
    attempt = written(workspace / "checkpoints" / "ray" / "done-0123abcd" / "state.json").parent
    orphan = written(workspace / "stores" / "mine" / "shards" / "0123.parquet")
    unfinished = written(workspace / "stores" / "begun" / "shards" / "0123.parquet")
    deleted, just_deleted = (run_with_a_file(client, workspace, end) for end in (True, False))
    age(workspace / "checkpoints")
    age(workspace / "stores")

    places, told = collect(capsys)
    assert places == {
        "mine": "shards that no version names, of builds that were cut off",
        "begun": "shards of a build that was never finished",
        "done": "checkpoints of a training that is finished and registered",
        "going-on": "files of a killed training",
        "done-0123abcd": "Ray Train's own files of an attempt that is over",
        deleted.name: places[deleted.name],
    }
    assert "which was deleted in MLflow" in places[deleted.name]
    states = sum(path.stat().st_size for path in done.rglob("state.json"))
    assert told["bytes"] == 5000 + states
    assert not told["deleted"]
    assert all(path.exists() for path in (left, attempt, orphan, unfinished, deleted))

    assert collect(capsys, delete=True)[1]["deleted"]
    assert not any(path.exists() for path in (left, attempt, orphan, unfinished))
    assert [*deleted.rglob("*.html")] == []
    assert [*just_deleted.rglob("*.html")] != []
    assert checkpoint_steps(str(done)) == []
    assert (done / "weights.safetensors").read_bytes() == WEIGHTS
    assert checkpoint_steps(str(rival)) == checkpoint_steps(str(going_on)) == [10, 20]
    assert all(whole for _, whole in verify(open_store(str(workspace / "stores" / "mine"))))
    assert collect(capsys)[0] == {}


def test_what_is_younger_or_leased_stays(workspace, capsys):
    client = MlflowClient(settings().mlflow_uri)
    done = training(workspace, "done")
    registered(client, done / "weights.safetensors", hashlib.sha256(WEIGHTS).hexdigest())
    orphan = written(workspace / "stores" / "mine" / "shards" / "0123.parquet")
    assert collect(capsys, delete=True)[0] == {}
    assert {*collect(capsys, older_than="0s")[0]} == {"done", "mine"}
    with held(f"{done}.lease"), held(str(workspace / "stores" / "mine" / "lease")):
        assert collect(capsys, older_than="0s", delete=True)[0] == {}
    assert orphan.exists()
    assert checkpoint_steps(str(done)) == [10, 20]


def test_weights_that_changed_since_they_were_registered_keep_their_checkpoints(workspace, capsys):
    done = training(workspace, "done")
    registered(MlflowClient(settings().mlflow_uri), done / "weights.safetensors", "0" * 64)
    assert collect(capsys, older_than="0s")[0] == {}


def test_an_age_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"duration 'a week': write it as 90s, 9m, 1\.5h or 7d"):
        gc(older_than="a week")
