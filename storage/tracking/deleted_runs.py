"""Artifacts of runs that were deleted, which MLflow keeps until somebody removes them."""

import time
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from storage.retention import Garbage
from storage.tracking.mlflow_client import open_client


def run_garbage(uri: str, *, older_than_s: float) -> Iterator[Garbage]:
    """Yield the artifacts of deleted runs, of a server or database, that ended so long ago.

    Those that a registered version was made in are left out. The runs themselves stay deleted in
    MLflow's database. Raises what MLflow raises.
    """
    client = open_client(uri)
    for run in _deleted(client):
        is_old = (run.info.end_time or run.info.start_time) / 1000 < time.time() - older_than_s
        if not is_old or client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            continue
        place = str(run.info.artifact_uri)
        artifacts = get_artifact_repository(place, uri, uri)
        if sizes := [*_sizes(artifacts)]:
            yield Garbage(
                place=place,
                why=f"artifacts of run {run.info.run_name}, which was deleted in MLflow",
                files=len(sizes),
                bytes=sum(sizes),
                remove=artifacts.delete_artifacts,
            )


def _deleted(client: MlflowClient) -> Iterator[Run]:
    for experiment in client.search_experiments(view_type=ViewType.ALL):
        token = None
        while token != "":
            page = client.search_runs(
                [experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY, page_token=token
            )
            yield from page
            token = page.token or ""


def _sizes(artifacts: ArtifactRepository, path: str | None = None) -> Iterator[int]:
    for found in artifacts.list_artifacts(path):
        if found.is_dir:
            yield from _sizes(artifacts, found.path)
        else:
            yield int(found.file_size or 0)
