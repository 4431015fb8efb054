"""How this project talks to MLflow: clients without global state, experiments."""

import re
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.environment_variables import (
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from storage import files

HTTP_RETRIES = 1
HTTP_TIMEOUT_S = 20


def open_client(uri: str) -> MlflowClient:
    """Return a client of one MLflow server or database, free of MLflow's global URIs.

    It also gives MLflow cautious defaults in this process: a request is repeated once (not seven
    times over four minutes) and waits 20 seconds for an answer (not 120), models that hold a
    pickle are not loaded, and downloads draw no progress bars. MLflow's own environment variables
    of these settings go first.
    """
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.default = HTTP_RETRIES
    MLFLOW_HTTP_REQUEST_TIMEOUT.default = HTTP_TIMEOUT_S
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION.default = False
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.default = False
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


class LazyExperiment:
    """An experiment that is looked up or created when it is first needed."""

    def __init__(self, client: MlflowClient, name: str, artifact_root: str | None) -> None:
        self._client = client
        self._name = name
        self._id: str | None = None
        self._location = None
        if artifact_root is not None:
            root = artifact_root if "://" in artifact_root else str(Path(artifact_root).absolute())
            self._location = files.join(root, re.sub(r"[^\w.-]+", "-", name))

    def identify(self) -> str:
        """Return the id. Raises what MLflow raises when the server is away."""
        if self._id is None:
            found = self._client.get_experiment_by_name(self._name) or self._create()
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            self._id = found.experiment_id
        return self._id

    def _create(self) -> Experiment:
        try:
            created = self._client.create_experiment(self._name, self._location)
        except MlflowException:
            if (rival := self._client.get_experiment_by_name(self._name)) is not None:
                return rival
            raise
        return self._client.get_experiment(created)


def last_steps(client: MlflowClient, run: Run) -> dict[str, int]:
    """Return the last recorded step of every metric of a run."""
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: max(point.step for point in points) for key, points in histories.items()}
