"""How this project talks to MLflow: clients without global state, experiments, run ownership."""

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
from storage.tracking.owners import is_gone, machine, owner

HTTP_RETRIES = 1
HTTP_TIMEOUT_S = 20
OWNER_TAG = "qfactory.owner"
USERINFO = re.compile(r"(?<=://)[^/\s]*@")


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


def shown_uri(text: str) -> str:
    """Return a URI, or a message with URIs in it, without user names and passwords."""
    return USERINFO.sub("", text)


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


def end_abandoned_runs(client: MlflowClient) -> list[str]:
    """End runs as KILLED, of every experiment, whose process on this machine is gone.

    Returns their ids.
    """
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    ours = f"tags.`{OWNER_TAG}` LIKE '{machine()}/%' and attributes.status = 'RUNNING'"
    running = client.search_runs(everywhere, ours) if everywhere else []
    abandoned = [run.info.run_id for run in running if _owner_is_gone(run)]
    for run_id in abandoned:
        client.set_tag(run_id, "error", "its process ended without a word")
        client.set_terminated(run_id, "KILLED")
    return abandoned


def last_steps(client: MlflowClient, run: Run) -> dict[str, int]:
    """Return the last recorded step of every metric of a run."""
    histories = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: max(point.step for point in points) for key, points in histories.items()}


def _owner_is_gone(run: Run) -> bool:
    return is_gone(run.data.tags.get(OWNER_TAG, ""))


def may_be_continued(run: Run) -> bool:
    """Tell whether a run is ours already or nobody works on it."""
    ours = run.data.tags.get(OWNER_TAG) == owner()
    return ours or run.info.status != "RUNNING" or _owner_is_gone(run)
