"""`qfactory models` with versions that were registered as a study registers them."""

import getpass
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from flows.commands.models_registry import list_models, show_model
from flows.settings import settings
from flows.steps.registration import register_network, rescore_champion
from models import build_model
from pipeline.evaluation.protocol import score
from pipeline.networks.weights import load_network, save_weights
from pipeline.recipes import get_recipe
from pipeline.training.job import TrainingResult
from storage.registry.gate import JPEG_TAG, scores_in
from storage.registry.model_registry import ModelRegistry, scores_of
from storage.registry.registered_version import RegistryError
from storage.tracking.tracker import Tracker
from tests.support.commands import Answer, several
from tests.support.processes import free_port
from tests.support.project import PROJECT
from tests.support.store_images import build, image_folder

pytestmark = pytest.mark.slow

SHIPPED = PROJECT / "models" / "zoo" / "quickres-qf10.safetensors"
NAME = "qfactory-quickres-qf10"
RECIPE = get_recipe("quickres-qf10")


@dataclass(frozen=True)
class Registered:
    """A workspace with two versions: the shipped weights, and the same ones, weakened."""

    folder: Path
    gains: tuple[float, ...]
    """PSNR over JPEG on sample:test at QF 10, dB."""


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("QFACTORY_WORKSPACE", str(folder / "workspace"))
        settings.cache_clear()
        _, network = load_network(str(SHIPPED))
        weak = network.state_dict()
        weak["layer5.weight"] = weak["layer5.weight"] / 2  # half of what it adds to the image
        save_weights(str(folder / "weak.safetensors"), weak, RECIPE, 7)
        files = (SHIPPED, folder / "weak.safetensors")
        gains = tuple(register(folder, weights) for weights in files)
    settings.cache_clear()
    return Registered(folder, gains)


def register(folder: Path, weights: Path) -> float:
    """Register weights as a study does; return their gain."""
    version = build(image_folder(folder / "photos", 2), folder / "store").version
    result = TrainingResult(
        weights=str(weights), steps=1600, seconds=56.0, history=(), finished=True
    )
    scores = score(load_network(str(weights))[1], "sample:test", 10)
    with (
        Tracker(settings().mlflow_uri, settings().artifact_root) as tracker,
        tracker.study("study") as run,
        disable_run_logger(),  # there is no flow run
    ):
        register_network.fn(RECIPE, version, result, {"sample:test": scores}, run, None)
    return scores.gain(10)


@pytest.fixture
def set_environment(monkeypatch):
    """Return a function that makes a workspace, and other variables, those of this process."""

    def set_variables(folder, **variables):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setenv("QFACTORY_WORKSPACE", str(folder / "workspace"))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield set_variables
    settings.cache_clear()


@pytest.fixture(scope="module")
def answers(registered) -> dict[str, Answer]:
    """Name -> what was answered, in this order, in one workspace, on a wide terminal."""
    compare = ("compare", NAME, f"{NAME}/2")
    commands = {
        "list": ("list",),
        "list json": ("list", "--json"),
        "show": ("show", NAME),
        "show json": ("show", f"models:/{NAME}/2", "--json"),
        "compare": (*compare, "--dataset", "sample:test", "--qf", "10"),
        "compare json": (*compare, "--dataset", "sample:test", "--json"),
        "compare recorded": (*compare, "--json"),
        "promote": ("promote", f"{NAME}/2"),
        "force": ("promote", f"{NAME}@challenger", "--force", "--reason", "1 fails on scans"),
        "forced": ("show", NAME, "--json"),
        "rollback": ("rollback", NAME, "--reason", "2 has stripes"),
        "again": ("promote", f"{NAME}/2"),
        "no champion before": ("rollback", NAME),
        "to nobody": ("rollback", NAME, "--to", "7"),
        "rollback to a version": ("rollback", f"{NAME}/1"),
        "champion": ("promote", NAME),
        "history": ("show", NAME, "--json"),
        "unknown model": ("show", "qfactory-nobody"),
        "unknown model's version": ("compare", NAME, "qfactory-nobody/3"),
        "unknown version": ("promote", f"{NAME}/9"),
        "unknown alias": ("show", f"{NAME}@best"),
        "force without a reason": ("promote", f"{NAME}/2", "--force"),
        "a reason without force": ("promote", f"{NAME}/2", "--reason", "r"),
        "rollback of nobody": ("rollback", "qfactory-nobody"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "140")
        told = several(registered.folder, [("models", *command) for command in commands.values()])
    return dict(zip(commands, told, strict=True))


def test_the_list_tells_champion_challenger_and_the_gates_scores(answers, registered):
    done = answers["list"]
    assert done.code == 0, done.err
    row = done.out.splitlines()[-1].split()
    assert row[:7] == [NAME, "1", "of", "2", "2", "sample:test", "QF10"]
    assert "quickres-qf10" in row
    (model,) = json.loads(answers["list json"].out)
    assert (model["model"], model["champion"], model["challenger"]) == (NAME, 1, 2)
    weak, shipped = model["versions"]
    assert shipped["gate"]["psnr"] == pytest.approx(float(row[7]), abs=0.005)
    assert shipped["gate"]["psnr"] - weak["gate"]["psnr"] == pytest.approx(
        registered.gains[0] - registered.gains[1]
    )
    assert (shipped["decision"], weak["decision"]) == ("champion", "challenger")


def test_show_prints_the_card_the_tags_and_every_file_as_verified(answers, registered):
    done = answers["show"]
    assert done.code == 0, done.err
    parameters = sum(p.numel() for p in build_model("quickres").parameters())
    assert f"{parameters:,} parameters" in done.out
    assert "1,600 steps in 56 s" in done.out
    assert f"{NAME}@champion" in done.out
    files = [file["file"] for file in json.loads(answers["forced"].out)["files"]]
    shown = [file for file in files if not file.endswith("/__pycache__")]
    assert done.out.count(" verified") == len(shown) == len(files) - 1
    assert f'set_tracking_uri("sqlite:///{registered.folder}/workspace/mlflow.db")' in done.out


def test_the_card_of_a_registered_version_has_its_true_scores(answers, registered):
    told = json.loads(answers["show json"].out)
    assert told["version"] == 2
    card = told["description"]
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| sample:test")]
    (before, after) = (float(row[3]) for row in rows)
    assert after - before == pytest.approx(registered.gains[1], abs=0.011)
    for section in ("What it is", "Trained on", "Scores", "Limits", "How to load", "Licence"):
        assert f"## {section}\n" in card
    assert told["tags"]["dataset_fingerprint"] in card
    assert told["tags"]["store_version"] in card
    assert {file["state"] for file in told["files"]} == {"verified"}
    assert "MLmodel" in {file["file"] for file in told["files"]}
    assert told["tags"]["dataset"] in card


def test_compare_scores_both_on_the_same_images_and_asks_the_gate(answers, registered):
    done = answers["compare"]
    assert done.code == 0, done.err
    assert "0 better, 3 worse, 0 equal" in done.out
    assert "the gate: challenger, PSNR gain over the champion -" in done.out
    told = json.loads(answers["compare json"].out)
    first, second, difference = told["rows"]
    assert (first[""], second[""]) == (f"models:/{NAME}/1", f"models:/{NAME}/2")
    assert difference["psnr"] == pytest.approx(registered.gains[1] - registered.gains[0], abs=1e-3)
    assert told["images"] == {"better": 0, "worse": 3, "equal": 0}
    assert told["gate"]["alias"] == "challenger"


def test_compare_without_a_dataset_takes_the_recorded_scores(answers, registered):
    told = json.loads(answers["compare recorded"].out)
    assert told["images"] is None
    assert told["rows"][2]["psnr"] == pytest.approx(registered.gains[1] - registered.gains[0])


def test_promote_asks_the_gate_and_force_says_who_and_why(answers):
    refused = answers["promote"]
    assert refused.code == 2
    assert "PSNR gain over the champion -" in refused.err
    assert "--force --reason TEXT promotes it all the same" in refused.err
    assert answers["force"].code == 0, answers["force"].err
    told = json.loads(answers["forced"].out)
    assert (told["version"], told["aliases"]) == (2, ["champion"])
    assert told["tags"]["gate.forced"].endswith(f"by {getpass.getuser()}: 1 fails on scans")


def test_rollback_gives_the_alias_back_and_the_gate_does_not_undo_it(answers):
    done = answers["rollback"]
    assert done.code == 0, done.err
    assert f"models:/{NAME}/1 is @champion, it was version 2; withdrawn: 2" in done.out
    assert answers["again"].code == 2
    assert f"by {getpass.getuser()}: 2 has stripes" in answers["again"].err
    assert answers["champion"].code == 0
    assert "it is the champion already" in answers["champion"].out
    history = json.loads(answers["history"].out)["history"]
    assert [(entry["how"], entry["version"]) for entry in history] == [
        ("gate", 1), ("force", 2), ("rollback", 1),
    ]  # fmt: skip
    assert [entry["before"] for entry in history] == [None, 1, 2]


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("no champion before", "there is no champion before version 1"),
        ("to nobody", "version 7 is not an earlier champion; there are [2]"),
        ("rollback to a version", "give the model's NAME alone"),
        ("unknown model", f"unknown model; there are ['{NAME}']"),
        ("unknown model's version", f"unknown model; there are ['{NAME}']"),
        ("unknown version", f"{NAME} has no version 9; there are [1, 2]"),
        (
            "unknown alias",
            "no version has the alias 'best'; there are @challenger (version 2), @champion",
        ),
        ("force without a reason", "--force needs --reason TEXT"),
        ("a reason without force", "--reason goes with --force"),
        ("rollback of nobody", f"unknown model; there are ['{NAME}']"),
    ],
)
def test_a_mistake_is_one_line_that_lists_what_there_is(answers, mistake, told):
    done = answers[mistake]
    assert done.code == 2
    assert told in done.err
    assert done.out == ""
    assert len(done.err.strip().splitlines()) == 1


def test_show_names_a_file_that_was_changed_and_exits_with_1(registered, set_environment, capsys):
    set_environment(registered.folder)
    client = MlflowClient(tracking_uri=settings().mlflow_uri, registry_uri=settings().mlflow_uri)
    source = client.get_model_version_download_uri(NAME, "2")
    file = Path(source.removeprefix("file://")) / "requirements.txt"
    whole = file.read_bytes()
    file.write_bytes(whole + b"# changed\n")
    with pytest.raises(SystemExit) as stop:
        show_model(f"{NAME}/2")
    file.write_bytes(whole)
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "changed" in line.split()]
    assert line.startswith("requirements.txt")


def test_a_champion_scored_at_another_quality_factor_is_scored_again_with_jpeg_beside(
    registered, answers, set_environment
):
    set_environment(registered.folder)
    with disable_run_logger():
        registry = ModelRegistry(settings().mlflow_uri)
        champion = registry.resolve(NAME)
        same = scores_in(champion.tags, JPEG_TAG)
        assert same is not None
        rescore_champion(registry, NAME, replace(same, psnr=1.0), RECIPE)
        assert scores_in(registry.resolve(NAME).tags, JPEG_TAG) == same, "it was scored already"
        other = replace(same, qfs=(20,), psnr=1.0)
        rescore_champion(registry, NAME, other, RECIPE)
    tags = registry.resolve(NAME).tags
    before, after = scores_of(champion), scores_in(tags)
    assert before is not None
    assert after is not None
    assert (after.dataset, after.qfs) == (before.dataset, (20,))
    assert after.psnr > before.psnr + 0.5
    assert scores_in(tags, JPEG_TAG) == other


def test_where_nothing_is_registered_the_list_is_empty_and_show_says_what_makes_a_model(tmp_path):
    listed, as_json, shown = several(
        tmp_path, [("models", "list"), ("models", "list", "--json"), ("models", "show", "x")]
    )
    assert (listed.code, listed.out) == (0, "")
    assert "qfactory study" in listed.err
    assert json.loads(as_json.out) == []
    assert shown.code == 2
    assert "nothing is registered yet" in shown.err
    assert not (tmp_path / "workspace" / "mlflow.db").exists()


def test_a_registry_that_does_not_answer_is_named(tmp_path, set_environment):
    uri = f"http://127.0.0.1:{free_port()}"
    set_environment(tmp_path, MLFLOW_TRACKING_URI=uri)
    with pytest.raises(RegistryError, match=f"Check that {uri} can be reached"):
        list_models()
