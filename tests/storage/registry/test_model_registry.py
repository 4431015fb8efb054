"""Model registry: what a consumer gets who has only MLflow, and who may become champion."""

import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from requests import JSONDecodeError
from torch import nn
from torch.nn import functional as F

from storage.registry.gate import GateScores, decide
from storage.registry.model_registry import (
    ModelRegistry,
    RegisteredVersion,
    RegistryError,
    scores_of,
)
from storage.registry.registered_version import explained
from storage.shown import shown_uri
from storage.tracking.recorded_runs import REPORT_TAG, RecordedRuns, TrackingError
from storage.tracking.tracker import Tracker
from tests.support.mlflow_servers import new_database, running_server
from tests.support.processes import free_port

SHAPES = [(n, 1, h, w) for n in (1, 3) for h, w in ((8, 8), (33, 47), (57, 64))]
EXAMPLE = np.random.default_rng(0).random((2, 1, 16, 24), dtype=np.float32)
SCORES = GateScores(dataset="classic5", qfs=(10,), psnr=28.0, ssim=0.80, psnr_b=27.5)


class Halves(nn.Module):
    """Works on 2x2 blocks, so that odd sizes must be padded and cropped again."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        rows = torch.arange((height + 1) // 2 * 2).clamp(max=height - 1)
        columns = torch.arange((width + 1) // 2 * 2).clamp(max=width - 1)
        even = x.index_select(2, rows).index_select(3, columns)
        mixed = F.pixel_shuffle(self.mix(F.pixel_unshuffle(even, 2)), 2)
        kept = mixed.index_select(2, torch.arange(height)).index_select(3, torch.arange(width))
        return (x + kept).clamp(0, 1)


class Frozen(nn.Module):
    """Exports, but only for the width of the example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + torch.zeros(int(x.shape[-1]))).clamp(0, 1)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Halves().eval()


def open_registry(uri: str, artifacts: Path) -> tuple[ModelRegistry, str]:
    with Tracker(uri, str(artifacts)) as tracker, tracker.study("study") as study:
        assert study.run_id is not None
        return ModelRegistry(uri), study.run_id


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> tuple[ModelRegistry, str]:
    folder = tmp_path_factory.mktemp("registry")
    return open_registry(new_database(folder), folder / "artifacts")


def register(registry: tuple[ModelRegistry, str], name: str, **tags: str) -> RegisteredVersion:
    opened, run_id = registry
    return opened.register(
        network(), name=name, input_example=EXAMPLE, tags=tags, run_id=run_id, description="small"
    )


def tagged(registry: tuple[ModelRegistry, str], name: str, *tags: dict[str, str]) -> None:
    """Make versions without files: neither finding nor promoting them looks at any."""
    client = MlflowClient(tracking_uri=registry[0].uri, registry_uri=registry[0].uri)
    client.create_registered_model(name)
    for own in tags:
        client.create_model_version(name, "s3://nowhere/model", tags=own)


CONSUMER = """
import sys
for name in ("models", "pipeline", "storage", "flows"):
    sys.modules[name] = None  # importing one of them raises ImportError
import mlflow, numpy as np, torch
tracking, uri, folder = sys.argv[1:]
mlflow.set_tracking_uri(tracking)
images = np.load(folder + "/in.npz")
module = mlflow.pytorch.load_model(uri)
ways = {
    "pyfunc": mlflow.pyfunc.load_model(uri).predict,
    "pytorch": lambda image: module(torch.from_numpy(image)).detach().numpy(),
}
for way, restore in ways.items():
    np.savez(f"{folder}/{way}.npz", **{name: restore(images[name]) for name in images.files})
"""


@pytest.mark.slow
def test_a_consumer_without_this_project_and_without_pickle_restores_any_size(registry, tmp_path):
    found = register(registry, "qfactory-consumed")
    images = {str(shape): np.random.default_rng(1).random(shape, np.float32) for shape in SHAPES}
    np.savez(tmp_path / "in.npz", allow_pickle=False, **images)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", "-c", CONSUMER, registry[0].uri, found.uri, str(tmp_path)],
        check=True,
        cwd=tmp_path,
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
    )
    for way in ("pyfunc", "pytorch"):
        with np.load(tmp_path / f"{way}.npz") as restored:
            for name, image in images.items():
                with torch.no_grad():
                    expected = network()(torch.from_numpy(image)).numpy()
                np.testing.assert_allclose(restored[name], expected, atol=1e-6)


@pytest.mark.slow
def test_a_version_carries_its_tags_digests_requirements_and_run(registry, tmp_path):
    opened, run_id = registry
    found = register(registry, "qfactory-net-qf10", recipe="net-qf10", commit="abc")
    assert (found.uri, found.run_id) == ("models:/qfactory-net-qf10/1", run_id)
    assert (found.tags["recipe"], found.tags["commit"]) == ("net-qf10", "abc")
    folder = opened.download(found.uri, tmp_path)
    assert set(found.digests) >= {"MLmodel", "data/model.pt2", "requirements.txt"}
    pins = [line.split("==") for line in (folder / "requirements.txt").read_text().splitlines()]
    assert [name for name, _ in pins] == ["torch", "numpy", "mlflow", "pillow"]
    assert not any("+" in version for _, version in pins)
    assert "".join((folder / "MLmodel").read_text().split()).count("[-1,1,-1,-1]") == 2


@pytest.mark.slow
def test_a_loaded_network_equals_the_registered_one(registry):
    opened, _ = registry
    found = register(registry, "qfactory-loaded")
    loaded = opened.load(found.uri)
    for shape in SHAPES:
        image = torch.rand(shape)
        torch.testing.assert_close(loaded(image), network()(image))


@pytest.mark.slow
def test_changed_added_and_removed_files_are_refused_by_name(registry):
    opened, _ = registry
    found = register(registry, "qfactory-changed")
    client = MlflowClient(tracking_uri=opened.uri, registry_uri=opened.uri)
    data = Path(client.get_model_version_download_uri(found.name, "1")) / "data"
    program, added = data / "model.pt2", data / "model.pth"
    content = program.read_bytes()

    def check_refused(file: Path) -> None:
        told = f"{found.uri}: data/{file.name} changed since it was registered"
        with pytest.raises(RegistryError, match=told):
            opened.load(found.uri)

    middle = len(content) // 2
    program.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    check_refused(program)
    program.unlink()
    check_refused(program)
    program.write_bytes(content)
    added.write_bytes(pickle.dumps("anything"))
    check_refused(added)
    added.unlink()
    opened.load(found.uri)


@pytest.mark.slow
def test_a_pt2_archive_with_a_pickle_inside_is_not_loaded(registry, tmp_path):
    opened, _ = registry
    found = register(registry, "qfactory-pickled")
    client = MlflowClient(tracking_uri=opened.uri, registry_uri=opened.uri)
    file = Path(client.get_model_version_download_uri(found.name, "1")) / "data" / "model.pt2"
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("model/data/constants/custom_obj_0", pickle.dumps(print))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    client.set_model_version_tag(found.name, "1", "sha256:data/model.pt2", digest)
    with pytest.raises(RegistryError, match="not a pickle-free payload"):
        opened.load(found.uri)


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (Halves().train(), EXAMPLE, "call eval"),
        (network(), EXAMPLE[:1], "2 or more"),
        (network(), EXAMPLE.astype(np.float64), "float32"),
        (network(), EXAMPLE[:, 0], "N,1,H,W"),
        (Frozen().eval(), EXAMPLE, "index_select"),
    ],
    ids=["training", "one image", "float64", "no channel", "frozen size"],
)
def test_an_unsuitable_network_is_refused_and_leaves_no_version(registry, module, example, message):
    opened, run_id = registry
    with pytest.raises(ValueError, match=message):
        opened.register(module, name="qfactory-bad", input_example=example, tags={}, run_id=run_id)
    assert opened.versions("qfactory-bad") == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (JSONDecodeError("no JSON", "<html>", 0), RegistryError),
        (OSError("gone"), RegistryError),
        (ValueError("a mistake"), ValueError),
    ],
)
def test_what_a_server_answers_wrongly_is_told_with_a_next_step_and_mistakes_as_they_are(
    error, told
):
    with pytest.raises(told) as caught, explained("http://mlflow", "looking"):
        raise error
    assert ("can be reached" in str(caught.value)) == (told is RegistryError)


def test_versions_are_found_by_all_their_tags_newest_first(registry):
    opened, _ = registry
    tagged(registry, "qfactory-found", *({"recipe": "r", "store": n} for n in ("1", "2", "2")))
    newest = opened.find_version("qfactory-found", {"recipe": "r", "store": "2"})
    assert newest is not None
    assert newest.version == 3
    assert opened.find_version("qfactory-found", {"recipe": "other"}) is None
    assert opened.find_version("qfactory-unknown", {}) is None
    assert [v.version for v in opened.list_models()["qfactory-found"]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/qfactory-named/9", r"there are \[1\]"),
        ("models:/qfactory-named@best", r"no version has the alias 'best'.*qfactory-named/1"),
        ("qfactory-nobody", "unknown model; there are.*qfactory-named"),
        ("qfactory-nobody/3", "unknown model; there are.*qfactory-named"),
        ("qfactory-named@best", "there are none and"),
        ("models:/qfactory-named/latest", "write models:/NAME/VERSION"),
    ],
)
def test_an_unknown_model_lists_what_there_is(registry, uri, message):
    opened, _ = registry
    if not opened.versions("qfactory-named"):
        register(registry, "qfactory-named")
    with pytest.raises(RegistryError, match=message):
        opened.resolve(uri)


@pytest.mark.parametrize(
    ("change", "alias", "reason"),
    [
        ({"psnr": 28.02}, "champion", "champion [+]0.020 dB"),
        ({"psnr": 28.005}, "challenger", "below 0.01 dB"),
        ({"psnr": 29.0, "ssim": 0.7999}, "challenger", "SSIM 0.7999 is below"),
        ({"psnr": 29.0, "psnr_b": 27.4}, "challenger", "PSNR-B 27.4000 is below"),
        ({"psnr": 29.0, "dataset": "live1"}, "challenger", "scored on live1 QF10"),
        ({"psnr": 29.0, "qfs": (20,)}, "challenger", "scored on classic5 QF20"),
    ],
)
def test_the_gate_asks_for_more_psnr_and_no_loss(change, alias, reason):
    decision = decide(replace(SCORES, **change), SCORES)
    assert decision.alias == alias
    assert re.search(reason, decision.reason)


def test_a_first_version_has_to_beat_jpeg():
    jpeg = replace(SCORES, psnr=SCORES.psnr - 0.5)
    assert decide(SCORES, None, jpeg=jpeg).alias == "champion"
    lost = decide(replace(SCORES, psnr=jpeg.psnr - 1), None, jpeg=jpeg)
    assert lost.alias == "challenger"
    assert "PSNR gain over JPEG -1.000 dB" in lost.reason


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="psnr nan"):
        replace(SCORES, psnr=float("nan"))


def test_scores_of_a_blind_network_are_compared_at_all_its_quality_factors():
    blind = replace(SCORES, qfs=(10, 20))
    assert decide(replace(blind, psnr=28.5), blind).alias == "champion"
    other = decide(replace(blind, psnr=28.5), SCORES)
    assert other.alias == "challenger"
    assert "scored on classic5 QF10,20, the champion on classic5 QF10" in other.reason
    with pytest.raises(ValueError, match="one quality factor or more"):
        replace(SCORES, qfs=())


@pytest.mark.parametrize(("tag", "qfs"), [({"qf": "10"}, (10,)), ({"qfs": "10 20"}, (10, 20))])
def test_gate_tags_are_read_as_they_were_written_once_and_now(tag, qfs):
    tags = {"dataset": "classic5", "psnr": "28.0", "ssim": "0.8", "psnr_b": "27.5", **tag}
    found = RegisteredVersion(
        name="qfactory-net-qf10",
        version=1,
        tags={f"gate.{key}": value for key, value in {**tags, "decision": "champion"}.items()},
        run_id=None,
    )
    assert scores_of(found) == replace(SCORES, qfs=qfs)


@pytest.mark.slow
def test_promotion_moves_the_champion_only_for_the_better(registry):
    opened, _ = registry
    name = "qfactory-promoted"
    tagged(registry, name, {}, {}, {})
    assert opened.champion(name) is None
    assert opened.promotions.promote(name, 1, SCORES).alias == "champion"
    worse = opened.promotions.promote(name, 2, replace(SCORES, psnr=29.0, ssim=0.7))
    assert worse.alias == "challenger"
    second = opened.version(name, 2)
    assert second.aliases == ("challenger",)
    assert second.tags["gate.reason"] == worse.reason
    assert opened.promotions.promote(name, 3, replace(SCORES, psnr=28.3)).alias == "champion"
    assert opened.resolve(name).version == 3
    assert opened.version(name, 1).aliases == ()
    again = opened.promotions.promote(name, 3, replace(SCORES, psnr=28.3))
    assert again.reason == "it is the champion already"


@pytest.mark.slow
def test_promotions_at_the_same_time_leave_the_best_as_the_one_champion(registry):
    opened, _ = registry
    name = "qfactory-contended"
    tagged(registry, name, {}, {}, {}, {})
    gains = {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.3}
    start = threading.Barrier(len(gains))

    def promote(version: int) -> None:
        start.wait()
        ModelRegistry(opened.uri).promotions.promote(
            name, version, replace(SCORES, psnr=SCORES.psnr + gains[version])
        )

    with ThreadPoolExecutor(len(gains)) as promoters:
        list(promoters.map(promote, gains))
    assert [v.version for v in opened.versions(name) if "champion" in v.aliases] == [2]


def test_without_a_server_the_error_names_it_and_comes_soon():
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match=f"Check that {uri} can be reached"):
        ModelRegistry(uri).list_models()


def test_no_message_shows_the_password_of_a_server():
    uri = f"http://ana:secret@127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError) as told:
        ModelRegistry(uri).list_models()
    assert "secret" not in str(told.value)
    assert f"Check that {uri.replace('ana:secret@', '')} can be reached" in str(told.value)
    with pytest.raises(TrackingError) as told:
        RecordedRuns(uri).with_reports()
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ana:p@ss@host:5000/a", "https://host:5000/a"),
        ("at postgresql://ana:secret@host/mlflow: no", "at postgresql://host/mlflow: no"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://host/x, models:/net@champion", "http://host/x, models:/net@champion"),
    ],
)
def test_uris_are_shown_without_user_and_password(text, shown):
    assert shown_uri(text) == shown


def test_an_object_store_that_lets_nobody_in_is_told_as_one_error(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    uri = new_database(tmp_path)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("far")
    client.create_model_version("far", "s3://nowhere/model")
    with pytest.raises(RegistryError, match=r"far/1 not downloaded: .*credentials"):
        ModelRegistry(uri).download("models:/far/1", tmp_path)
    experiment = client.create_experiment("far", "s3://nowhere/runs")
    run = client.create_run(experiment, tags={REPORT_TAG: "report"}).info.run_id
    runs = RecordedRuns(uri)
    with pytest.raises(TrackingError, match=r"not recorded: .*credentials"):
        runs.write(runs.find(run), {"index.html": b"page"})


@pytest.mark.slow
def test_a_server_that_keeps_the_files_itself_serves_the_same_network(tmp_path):
    with running_server(tmp_path, free_port()) as uri:
        with Tracker(uri) as tracker, tracker.study("study") as study:
            assert study.run_id is not None
            opened = ModelRegistry(uri)
            found = register((opened, study.run_id), "qfactory-served", recipe="r")
        assert opened.promotions.promote(found.name, 1, SCORES).alias == "champion"
        image = torch.rand(1, 1, 19, 21)
        torch.testing.assert_close(opened.load("qfactory-served")(image), network()(image))
        assert opened.resolve("qfactory-served").tags["recipe"] == "r"
