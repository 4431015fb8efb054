"""Studies and trainings as flows, in one process: one Ray, one Prefect, MLflow on SQLite."""

import json
import shutil
import socket
from functools import partial
from pathlib import Path
from threading import Event
from typing import cast

import pytest
import torch
from prefect import flow, get_client
from safetensors.torch import load_file

from flows.commands import evaluate_networks, recipes
from flows.evaluate import evaluate
from flows.planning.store_places import default_store
from flows.report import report
from flows.settings import settings
from flows.steps import scoring
from flows.steps.reuse import find_trained
from flows.steps.study_results import StudyError, StudyResult
from flows.study import study
from flows.train import TrainingSlice, train
from pipeline.evaluation.scores import Comparison
from pipeline.networks.devices import choose_precision
from pipeline.recipes import get_recipe
from pipeline.reports.report_data import from_files
from pipeline.training.job import TrainingJob
from pipeline.training.loop import train as plain_training
from storage.patches.versions import open_store
from storage.registry.model_registry import ModelRegistry
from storage.tracking.mlflow_client import open_client
from storage.tracking.recorded_runs import RecordedRuns, UnknownRunError
from tests.support.flow_workspace import flow_workspace
from tests.support.store_images import image_folder

pytestmark = pytest.mark.slow

HARD, EASY, ALONE = "arcnn-qf10-from-qf20", "arcnn-qf20", "quickres-qf10"
MODELS = {HARD: "qfactory-arcnn-qf10", EASY: "qfactory-arcnn-qf20", ALONE: "qfactory-quickres-qf10"}
STEPS = 4
STUDY = {"recipes": [HARD, "quickres-qf1*"], "steps": STEPS, "threads": 1, "name": "first"}


@pytest.fixture(scope="module", autouse=True)
def workspace(tmp_path_factory):
    """A workspace for all tests here, with a Ray of two cores and a Prefect server."""
    with flow_workspace(tmp_path_factory.mktemp("study")) as folder:
        image_folder(folder / "photos", 2)
        yield folder


@pytest.fixture(scope="module")
def first():
    """A study of two lines of recipes: one from QF 20 to QF 10, and one alone."""
    return run_study()


def run_study(**options) -> StudyResult:
    return cast(StudyResult, study(**{**STUDY, "evaluate_on": [small_set()], **options}))


def small_set():
    """An evaluation set that costs little."""
    return f"folder:{settings().root}/photos"


def states(result):
    return {outcome.recipe: outcome.state for outcome in result.outcomes}


def versions(name):
    return [v.version for v in ModelRegistry(settings().mlflow_uri).versions(name)]


def runs_of(experiment):
    client = open_client(settings().mlflow_uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return client.search_runs([found.experiment_id])


def run_states(experiment):
    return {run.info.run_name: run.info.status for run in runs_of(experiment)}


def test_a_study_trains_what_is_asked_for_and_what_that_starts_from(first):
    assert states(first) == {EASY: "trained", HARD: "trained", ALONE: "trained"}
    assert {model.recipe: model.model for model in first.models} == {
        recipe: f"models:/{model}/1" for recipe, model in MODELS.items()
    }
    infos = {run.info.run_name: run.info for run in runs_of("first")}
    started = {name: int(info.start_time or 0) for name, info in infos.items()}
    easy_ended = int(infos[EASY].end_time or 0)
    assert started[HARD] >= easy_ended, "it starts from the other's weights"
    assert started[ALONE] < easy_ended, "independent recipes run side by side"
    assert set(run_states("first").values()) == {"FINISHED"}


def test_precision_and_processor_are_recorded_and_another_precision_trains_anew(first):
    (alone,) = [model for model in first.models if model.recipe == ALONE]
    (version,) = ModelRegistry(settings().mlflow_uri).versions(MODELS[ALONE])
    chosen = choose_precision("auto", torch.device("cpu"))
    assert version.tags["precision"] == chosen
    (part,) = json.loads(version.tags["training_parts"])
    assert part == {"processor": part["processor"], "precision": chosen, "steps": STEPS}
    (run,) = [run for run in runs_of("first") if run.info.run_id == alone.training_run]
    assert run.data.tags["precision"] == chosen
    wanted = get_recipe(ALONE).with_steps(STEPS), open_store(version.tags["store_version"][:-2])
    assert find_trained(*wanted, None, "auto") is not None
    assert find_trained(*wanted, None, chosen) is not None
    assert find_trained(*wanted, None, "float32") is None or chosen == "float32"


def test_a_study_leaves_a_report_which_mlflow_alone_can_make_again(first, tmp_path):
    page = Path(first.report).read_text()
    for text in (*(m.recipe for m in first.models), "Training loss", "trained for"):
        assert text in page
    copy = shutil.copytree(Path(first.report).parent, tmp_path / "kept")
    shutil.rmtree(Path(first.report).parent)
    (child,) = [run.info.run_id for run in runs_of("first") if run.info.run_name == EASY]
    again = report(child, str(tmp_path / "again.html"))
    assert Path(again).read_text() == (copy / "report.html").read_text()
    (parent,) = [run for run in runs_of("first") if run.info.run_name == "first"]
    client = open_client(settings().mlflow_uri)
    files = {file.path for file in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.html", "report/report.json", "report/gains-1.png"} <= files
    with pytest.raises(UnknownRunError, match=parent.info.run_id):
        report("nix", str(tmp_path / "none.html"))


def test_an_evaluation_leaves_a_report_that_prefect_links_to(first):
    (alone,) = [model for model in first.models if model.recipe == ALONE]
    (found,) = evaluate(network=alone.model, dataset=[small_set()], qf=[10]).scored
    assert isinstance(found, Comparison)
    assert found.restored.row(10).metrics == alone.scores[small_set()].restored.row(10).metrics
    (run,) = runs_of("evaluate")
    made = RecordedRuns(settings().mlflow_uri).find("evaluate")
    assert made.run_id == run.info.run_id
    content = from_files(partial(RecordedRuns(settings().mlflow_uri).read, made))
    (network,) = content.networks
    assert network.made["model"] == alone.model
    assert network.training_run == alone.training_run
    assert [step for step, _ in network.loss] == [r.step for r in alone.history]
    with get_client(sync_client=True) as prefect:
        links = [a for a in prefect.read_artifacts() if a.key == "report"]
    assert any(f"runs/{made.run_id}/artifacts/report/report.html" in str(a.data) for a in links)


def test_an_evaluation_by_the_command_is_recorded_if_the_user_says_so(first, tmp_path, capsys):
    (alone,) = [model for model in first.models if model.recipe == ALONE]
    page = tmp_path / "page.html"
    code = evaluate_networks.evaluate(
        alone.model, dataset=[small_set()], qf=[10], json=True, record=True, report=str(page)
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert code == 0
    assert row["psnr"] == alone.scores[small_set()].restored.row(10).metrics["psnr"]
    again = report("latest", str(tmp_path / "again.html"))
    assert Path(again).read_text() == page.read_text()


def test_training_on_what_is_evaluated_is_refused(workspace, datasets_root):
    with pytest.raises(ValueError, match=r"29 images belong to .*--allow-evaluation-images"):
        study(dataset=f"folder:{datasets_root}/LIVE1", recipes=[ALONE], steps=1)


def test_the_graph_shows_the_models_that_are_registered(first, capsys):
    recipes.graph("arcnn-qf10-from-*")
    easy, hard, other = capsys.readouterr().out.splitlines()
    assert easy == f"{EASY} models:/{MODELS[EASY]}/1"
    assert f"{HARD} takes the first layer models:/{MODELS[HARD]}/1" in hard
    assert other.endswith(f"{HARD}-two-layers takes the first 2 layers")


def test_the_same_study_again_only_evaluates(first):
    client = open_client(settings().mlflow_uri)
    client.set_model_version_tag(MODELS[ALONE], "1", "git_commit", "made-long-ago")
    again = run_study(name="again")
    runs = RecordedRuns(settings().mlflow_uri)
    made = {n.name: n.made for n in from_files(partial(runs.read, runs.find("again"))).networks}
    assert made[ALONE]["commit"] == "made-long-ago", "not today's"
    assert made[ALONE]["in this study"] == "reused"
    assert "pillow" in made[ALONE]["packages of the patches"].lower()
    assert set(states(again).values()) == {"reused"}
    assert again.rows == first.rows
    assert versions(MODELS[HARD]) == [1]
    assert set(run_states("again").values()) == {"FINISHED"}


def test_on_a_cluster_that_was_joined_tasks_score_and_find_what_this_process_found(
    first, monkeypatch
):
    (alone,) = [model for model in first.models if model.recipe == ALONE]
    ((dataset, before),) = alone.scores.items()
    for kept in Path(alone.weights).parent.glob("scores-*.json"):
        kept.unlink()
    monkeypatch.setattr(scoring, "may_grow", lambda: True)

    @flow
    def score() -> Comparison:
        recipe = get_recipe(ALONE).with_steps(STEPS)
        return scoring.score_network(recipe, alone.weights, dataset, Event())

    after = score()
    assert after.jpeg == before.jpeg
    assert [(one.image, one.metrics) for one in after.restored.per_image] == [
        (one.image, one.metrics) for one in before.restored.per_image
    ]


def test_what_lost_its_weights_is_trained_again_and_what_started_from_them_is_not(first):
    (easy,) = [model for model in first.models if model.recipe == EASY]
    before = Path(easy.weights).read_bytes()
    Path(easy.weights).write_bytes(before[:-1] + b"x")
    result = run_study(recipes=[HARD], name="damaged")
    assert states(result) == {EASY: "trained", HARD: "reused"}
    assert Path(easy.weights).read_bytes() == before


def test_a_failure_stops_only_what_depends_on_it_and_is_told_at_the_end(first):
    store = default_store("sample", get_recipe(EASY).patches)
    shards = [*Path(store, "shards").iterdir()]
    whole = [shard.read_bytes() for shard in shards]
    for shard, content in zip(shards, whole, strict=True):
        quarter = len(content) // 4
        shard.write_bytes(content[:quarter] + bytes(2 * quarter) + content[3 * quarter :])
    with pytest.raises(StudyError) as caught:
        run_study(steps=STEPS + 1, name="failing")
    for shard, content in zip(shards, whole, strict=True):
        shard.write_bytes(content)
    told = str(caught.value)
    assert "1 of 3 recipes failed: arcnn-qf20 failed (" in told
    assert "arcnn-qf10-from-qf20 was skipped (it starts from arcnn-qf20, which failed)" in told
    goes_on = f"qfactory study --dataset sample --recipes {HARD} 'quickres-qf1*' --steps 5"
    assert goes_on in told
    assert caught.value.result is not None
    assert states(caught.value.result) == {EASY: "failed", HARD: "skipped", ALONE: "trained"}
    assert run_states("failing") == {"failing": "FAILED", EASY: "FAILED", ALONE: "FINISHED"}


def trainings():
    """The MLflow runs of `train`, without those that they belong to."""
    return [run for run in runs_of("train") if "mlflow.parentRunId" in run.data.tags]


def test_two_slices_give_the_weights_of_one_uninterrupted_training(first, tmp_path):
    recipe, steps = get_recipe(ALONE).with_steps(20), 20
    store = open_store(default_store("sample", recipe.patches))
    whole = plain_training(
        TrainingJob(recipe=recipe, store=store.uri, checkpoints=str(tmp_path), threads=1)
    )
    part = train(recipe=ALONE, steps=steps, threads=1, evaluate_on=[small_set()], stop_after="0s")
    assert isinstance(part, TrainingSlice)
    assert str(part) == "quickres-qf10: 1 of 20 steps done; the same command goes on"
    known = versions(MODELS[ALONE])
    (cut_short,) = trainings()
    assert cut_short.info.status == "KILLED"
    rest = train(recipe=ALONE, steps=steps, threads=1, evaluate_on=[small_set()], stop_after="1h")
    assert not isinstance(rest, TrainingSlice)
    assert len(versions(MODELS[ALONE])) == len(known) + 1
    (run,) = trainings()
    assert (run.info.run_id, run.info.status) == (cut_short.info.run_id, "FINISHED")
    losses = open_client(settings().mlflow_uri).get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in losses] == [10, 20]
    ours, theirs = load_file(rest.weights), load_file(whole.weights)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_its_tracking_server_a_study_trains_and_says_what_was_not_recorded(
    first, monkeypatch, capsys
):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away)
    settings.cache_clear()
    result = run_study(recipes=[ALONE], steps=STEPS + 2)
    monkeypatch.undo()
    settings.cache_clear()
    assert states(result) == {ALONE: "trained"}
    assert [model.model for model in result.models] == [None]
    assert any("not recorded in MLflow: start of run" in note for note in result.notes)
    folder = str(Path(result.models[0].weights).parent)
    evaluate_networks.evaluate(folder, dataset=[small_set()], qf=[10], json=True)
    assert json.loads(capsys.readouterr().out)[0]["images"] == 2
