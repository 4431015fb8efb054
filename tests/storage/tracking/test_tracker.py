"""Tracking: what a study records in a real MLflow, and what happens when MLflow is away."""

import json
import socket
import threading
import time
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from storage.tracking import signs_of_life
from storage.tracking.abandoned_runs import OWNER_TAG, abandoned_runs
from storage.tracking.journal import Entry, Journal
from storage.tracking.server_state import ask_server
from storage.tracking.signs_of_life import EXPIRES_S, SIGN_TAG
from storage.tracking.tracker import Tracker
from tests.support.forks import FORKS
from tests.support.mlflow_servers import new_database, running_server
from tests.support.processes import free_port


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_database(tmp_path / "mlflow")


def runs_of(uri: str, study: str) -> dict[str, Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return {run.info.run_name or "": run for run in client.search_runs([experiment.experiment_id])}


def steps_of(uri: str, run: Run, metric: str) -> list[int]:
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, metric)
    return [point.step for point in history]


def test_a_study_is_an_experiment_with_a_parent_and_a_child_run_that_hold_everything(
    uri, tmp_path, monkeypatch
):
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    picture = tmp_path / "before-after.png"
    picture.write_bytes(b"picture")
    artifacts = tmp_path / "my artifacts"
    with (
        Tracker(uri, str(artifacts)) as tracker,
        tracker.study("bsds500 study", tags={"commit": "abc"}) as study,
        study.run("arcnn-qf10", tags={"recipe": "arcnn-qf10"}) as run,
    ):
        run.log_params({"lr": 0.003, "steps": 20})
        run.log_dataset("bsds500:train", fingerprint="ab" * 32, source="s3://store@1")
        for step in range(2500):
            run.log_metrics({"loss": 1 / (step + 1)}, step)
        run.log_text("été", "notes/recipe.txt")
        run.log_file(picture, "pictures")
        picture.unlink()
    assert tracker.unrecorded == []
    runs = runs_of(uri, "bsds500 study")
    parent, child = runs["bsds500 study"], runs["arcnn-qf10"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.data.tags["commit"], child.data.tags["recipe"]) == ("abc", "arcnn-qf10")
    assert {parent.info.status, child.info.status} == {"FINISHED"}
    assert child.data.params == {"lr": "0.003", "steps": "20"}
    assert steps_of(uri, child, "loss") == list(range(2500))
    assert child.inputs is not None
    (dataset,) = child.inputs.dataset_inputs
    assert dataset.dataset.name == "bsds500:train"
    assert {tag.key: tag.value for tag in dataset.tags}["fingerprint"] == "ab" * 32
    assert json.loads(dataset.dataset.source) == {"uri": "s3://store@1"}
    (folder,) = artifacts.glob("bsds500-study/*/artifacts/notes")
    assert (folder / "recipe.txt").read_text() == "été"
    assert (folder.parent / "pictures" / picture.name).read_bytes() == b"picture"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("loss is NaN"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (CancelledError(), "KILLED"),
    ],
    ids=["exception", "ctrl-c", "sigterm", "cancelled"],
)
def test_a_run_that_is_left_by_an_error_ends_and_says_why(uri, tmp_path, error, status):
    with (
        pytest.raises(type(error)),
        Tracker(uri, str(tmp_path)) as tracker,
        tracker.study("study") as study,
        study.run("child"),
    ):
        raise error
    runs = runs_of(uri, "study")
    assert {name: run.info.status for name, run in runs.items()} == {
        "study": status,
        "child": status,
    }
    assert type(error).__name__ in runs["child"].data.tags["error"]


def sleep_in_a_run(uri: str, started) -> None:
    with Tracker(uri) as tracker, tracker.study("study") as study, study.run("long"):
        started.set()
        time.sleep(600)


@pytest.mark.slow
def test_runs_of_a_killed_process_do_not_stay_running(uri):
    started = FORKS.Event()
    sleeper = FORKS.Process(target=sleep_in_a_run, args=(uri, started))
    sleeper.start()
    assert started.wait(300)
    with Tracker(uri) as tracker, tracker.study("study", run_name="beside"):
        pass
    assert runs_of(uri, "study")["long"].info.status == "RUNNING"
    sleeper.kill()
    sleeper.join()
    with Tracker(uri) as tracker, tracker.study("study", run_name="after"):
        pass
    statuses = {name: run.info.status for name, run in runs_of(uri, "study").items()}
    assert statuses == {
        "study": "KILLED",
        "long": "KILLED",
        "beside": "FINISHED",
        "after": "FINISHED",
    }


def test_runs_of_another_machine_end_when_they_have_been_silent(uri):
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("study")
    silent_s = {"living": 0, "late": EXPIRES_S - 30, "dead": EXPIRES_S + 30, "older": None}
    for name, seconds in silent_s.items():
        tags = {OWNER_TAG: "elsewhere/4026531836/77"}
        if seconds is not None:
            tags[SIGN_TAG] = str(time.time() - seconds)
        client.create_run(experiment, tags=tags, run_name=name)
    assert [client.get_run(i).info.run_name for i in abandoned_runs(client)] == ["dead"]
    with Tracker(uri) as tracker, tracker.study("study"):
        pass
    runs = runs_of(uri, "study")
    running = {name for name, run in runs.items() if run.info.status == "RUNNING"}
    assert running == {"living", "late", "older"}
    assert runs["dead"].info.status == "KILLED"
    assert runs["dead"].data.tags["error"] == "its process ended without a word"


def test_a_run_gives_signs_as_long_as_its_process_works_on_it(uri, monkeypatch):
    monkeypatch.setattr(signs_of_life, "RENEWED_S", 0.05)
    client = MlflowClient(tracking_uri=uri)
    with Tracker(uri) as tracker, tracker.study("study") as study:
        recorded = str(study.run_id)
        for _ in range(2):
            client.set_tag(recorded, SIGN_TAG, "0")
            in_time(lambda: client.get_run(recorded).data.tags[SIGN_TAG] != "0")
    in_time(lambda: "signs of life" not in [thread.name for thread in threading.enumerate()])
    assert runs_of(uri, "study")["study"].info.status == "FINISHED"


def in_time(happened):
    """Wait until something has happened, ten seconds at most."""
    until = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_work_that_was_cut_short_goes_on_in_its_run_and_doubles_no_step(uri):
    def work(first: int, last: int, *, fail: bool) -> None:
        with (
            Tracker(uri) as tracker,
            tracker.study("study") as study,
            study.run("arcnn", key="recipe@store@1") as run,
        ):
            for step in range(first, last):
                run.log_metrics({"loss": 0.5}, step)
            if fail:
                raise OSError("the machine went away")

    with pytest.raises(OSError, match="went away"):
        work(0, 30, fail=True)
    work(20, 40, fail=False)
    work(0, 5, fail=False)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'arcnn'")
    again, first = (steps_of(uri, run, "loss") for run in runs)
    assert (first, again) == (list(range(40)), list(range(5)))
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_what_mlflow_refuses_is_named_and_holds_up_nothing(uri):
    with Tracker(uri, gather_s=0.01) as tracker, tracker.study("study") as study:
        study.log_params({"lr": 1})
        study.log_params({"lr": 2})
        study.log_metrics({"no such name!": 1.0})
        tracker.journal.flush(10)
        study.log_metrics({"psnr": 28.5})
    reason, metric = tracker.unrecorded
    assert reason.startswith("run study: parameters lr: ")
    assert metric.startswith("run study: 1 metric values (no such name!)")
    run = runs_of(uri, "study")["study"]
    assert (run.data.params, run.data.metrics) == ({"lr": "1"}, {"psnr": 28.5})
    assert run.info.status == "FINISHED"


def test_a_deleted_experiment_is_restored(uri):
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment("study"))
    with Tracker(uri) as tracker, tracker.study("study"):
        pass
    assert tracker.unrecorded == []
    assert set(runs_of(uri, "study")) == {"study"}


def run_without_a_server(uri: str) -> tuple[list[str], float]:
    """Return what was named as unrecorded, and how long 300 calls of log_metrics took."""
    with (
        Tracker(uri, "/nowhere", patience_s=0.5) as tracker,
        tracker.study("study") as study,
        study.run("arcnn") as run,
    ):
        start = time.monotonic()
        for step in range(300):
            run.log_metrics({"loss": 0.1, "lr": 0.2}, step)
        seconds = time.monotonic() - start
        run.log_text("text", "notes.txt")
        assert run.run_id is None
        assert run.page_at(uri) is None
    return tracker.unrecorded, seconds


def test_without_a_server_the_work_goes_on_and_what_was_lost_is_named():
    unrecorded, seconds = run_without_a_server(f"http://127.0.0.1:{free_port()}")
    assert unrecorded == [
        "end of abandoned runs",
        "start of run study",
        "start of run arcnn",
        "run arcnn: 600 metric values (loss, lr) of steps 0 to 299",
        "run arcnn: file notes.txt",
        "run arcnn: end (FINISHED)",
        "run study: end (FINISHED)",
    ]
    assert seconds < 10, "patience of half a second, 300 times"


def test_what_could_not_be_recorded_is_kept_in_a_file_without_the_servers_password(
    tmp_path, caplog
):
    address = f"127.0.0.1:{free_port()}"
    uri = f"http://me:5ecret@{address}"
    with (
        Tracker(uri, keep_in=str(tmp_path / "kept"), patience_s=0.5) as tracker,
        tracker.study("study") as study,
    ):
        study.log_params({"lr": 0.1})
        study.log_metrics({"loss": 0.5}, 7)
        study.log_bytes(b"\x00\xff", "picture.png")
    (file,) = (tmp_path / "kept").iterdir()
    kept = {entry["what"]: entry["content"] for entry in json.loads(file.read_text())}
    assert list(kept) == tracker.unrecorded
    assert kept["run study: parameters lr"] == {"lr": "0.1"}
    ((name, value, _, step),) = kept["run study: 1 metric values (loss) of steps 7 to 7"]
    assert (name, value, step) == ("loss", 0.5, 7)
    assert kept["run study: file picture.png"] == {"path": "picture.png", "base64": "AP8="}
    assert f"Not recorded at http://{address}: " in caplog.text
    assert "5ecret" not in caplog.text + file.read_text()


@pytest.mark.slow
def test_a_server_that_never_answers_holds_up_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        unrecorded, seconds = run_without_a_server(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert len(unrecorded) == 7
        assert seconds < 10
        assert time.monotonic() - start < 60  # a request alone may take MLflow 120


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_gets_every_metric_once(tmp_path):
    port = free_port()
    with ExitStack() as servers:
        uri = servers.enter_context(running_server(tmp_path, port))
        with (
            Tracker(uri, patience_s=120, gather_s=0.05) as tracker,
            tracker.study("study") as study,
        ):
            with study.run("first") as run:
                run.log_metrics({"loss": 1.0}, 0)
            assert tracker.journal.flush(120)
            servers.close()
            with study.run("second") as run:
                for step in range(1, 1501):
                    run.log_metrics({"loss": 1 / step}, step)
                run.log_text("written while the server was away", "notes.txt")
                assert not tracker.journal.flush(2)
                assert "start of run second" in tracker.unrecorded
                servers.enter_context(running_server(tmp_path, port))
                run.log_metrics({"loss": 0.0}, 1501)
        assert tracker.unrecorded == []
        runs = runs_of(uri, "study")
        assert steps_of(uri, runs["first"], "loss") == [0]
        assert steps_of(uri, runs["second"], "loss") == list(range(1, 1502))
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        state = ask_server(uri)
        assert (state.version, state.keeps_files) == (mlflow.__version__, True)
        (file,) = MlflowClient(tracking_uri=uri).list_artifacts(runs["second"].info.run_id)
        assert file.path == "notes.txt"
        assert run.page_at(uri) == (
            f"{uri}/#/experiments/{runs['second'].info.experiment_id}/runs/{run.run_id}"
        )


def test_entries_are_written_in_order_however_often_one_fails():
    written: list[int] = []
    failures = [OSError("away"), OSError("away")]

    def write(number: int) -> None:
        if number == 1 and failures:
            raise failures.pop()
        written.append(number)

    journal = Journal(reachable=lambda: False, gather_s=0.0)
    for number in range(4):
        journal.add(Entry(describe=lambda n=number: str(n), write=lambda n=number: write(n)))
    assert journal.close(patience_s=10) == []
    assert written == [0, 1, 2, 3]
    journal.add(Entry(describe=lambda: "late", write=lambda: None))
    assert [unwritten.what for unwritten in journal.unwritten] == ["late: came after the end"]
