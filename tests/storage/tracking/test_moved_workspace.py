"""`mv workspace`: what MLflow knows of it is found again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.artifacts import download_artifacts
from torch import nn

from storage.registry.model_registry import ModelRegistry, RegistryError
from storage.tracking.mlflow_client import open_client
from storage.tracking.moved_workspace import follow
from storage.tracking.tracker import Tracker
from tests.support.mlflow_servers import new_database

pytestmark = pytest.mark.slow


class Lighter(nn.Module):
    """The least that can be registered."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 0.1).clamp(0, 1)


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a model and a run's file; there is a space in its path."""
    folder = tmp_path / "my photos" / "workspace"
    uri = new_database(folder)
    with Tracker(uri, (folder / "artifacts").as_uri()) as tracker, tracker.study("study") as run:
        assert run.run_id is not None
        run.log_text("told", "note.txt")
        ModelRegistry(uri).register(
            Lighter().eval(),
            name="lighter",
            input_example=np.zeros((2, 1, 16, 24), np.float32),
            tags={"weights": f"{folder}/checkpoints/w.safetensors"},
            run_id=run.run_id,
        )
    return folder


def test_a_moved_workspace_keeps_its_models_files_and_weights(workspace, tmp_path):
    moved = tmp_path / "elsewhere"
    workspace.rename(moved)
    registry = ModelRegistry(f"sqlite:///{moved}/mlflow.db")
    with pytest.raises(RegistryError):
        registry.load("models:/lighter/1")
    follow(moved / "mlflow.db")
    image = torch.full((1, 1, 16, 24), 0.5)
    assert registry.load("models:/lighter/1")(image).mean().item() == pytest.approx(0.6)
    found = registry.version("lighter", 1)
    assert found.tags["weights"] == f"{moved}/checkpoints/w.safetensors"
    assert found.run_id is not None
    file = download_artifacts(
        run_id=found.run_id, artifact_path="note.txt", tracking_uri=registry.uri
    )
    assert Path(file).read_text() == "told"
    (study,) = open_client(registry.uri).search_experiments(filter_string="name = 'study'")
    assert study.artifact_location == f"{moved.as_uri()}/artifacts/study"


def test_a_copied_workspace_is_left_as_it_is(workspace, tmp_path):
    copy = shutil.copytree(workspace, tmp_path / "copy")
    before = (copy / "mlflow.db").read_bytes()
    follow(copy / "mlflow.db")
    assert (copy / "mlflow.db").read_bytes() == before
