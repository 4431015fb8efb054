"""An MLflow server or database, asked whether it works for this process."""

import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from storage.shown import reason_of, shown_uri
from storage.tracking.abandoned_runs import abandoned_runs, end_abandoned_runs
from storage.tracking.mlflow_client import open_client

VERSION_S = 5.0
"""Seconds that a server has to say its version."""


class UnfitServerError(Exception):
    """A server cannot be used; `mend` is the command that helps."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """What a server answered."""

    version: str
    """Of a database, that of this process's MLflow."""
    ms: float
    """Milliseconds that a small question takes."""
    has_credentials: bool
    """Whether this process showed a token, or a name and a password."""
    keeps_files: bool
    """Whether a file was written and read back; a database was not asked for that."""
    abandoned: list[str]
    """Ids of runs whose process is gone."""


def ask_server(uri: str, *, end_abandoned: bool = False) -> ServerState:
    """Ask for the version, for runs, and for a small file to be kept; http(s):// or a database.

    `end_abandoned` ends the runs that `ServerState.abandoned` tells of. Raises UnfitServerError.
    """
    is_server = uri.startswith("http")
    client = open_client(uri)
    try:
        version = _server_version(uri) if is_server else mlflow.__version__
        start = time.monotonic()
        client.search_experiments(max_results=1)
        ms = 1000 * (time.monotonic() - start)
        abandoned = (end_abandoned_runs if end_abandoned else abandoned_runs)(client)
        if is_server:
            _try_artifacts(client, uri)
    except MlflowException as error:
        raise _explained(uri, error) from error
    shown = get_default_host_creds(uri)
    return ServerState(
        version=version,
        ms=ms,
        has_credentials=is_server and bool(shown.token or shown.username),
        keeps_files=is_server,
        abandoned=abandoned,
    )


def _server_version(uri: str) -> str:
    answer = http_request(
        get_default_host_creds(uri),
        "/version",
        "GET",
        max_retries=0,
        timeout=VERSION_S,
        raise_on_status=False,
    )
    assert answer is not None
    if answer.status_code == 404:
        raise UnfitServerError("is no MLflow server: it does not tell its version", _start(uri))
    if answer.status_code != 200:  # it is asked again, and explained, by a client
        return "unknown"
    theirs, ours = answer.text.strip(), mlflow.__version__
    if theirs.split(".")[0] != ours.split(".")[0]:
        raise UnfitServerError(
            f"is MLflow {theirs[:20]}, here it is {ours}: another major version",
            f"pip install mlflow=={ours}  # where the server runs; then mlflow db upgrade, restart",
        )
    return theirs


def _try_artifacts(client: MlflowClient, uri: str) -> None:
    """Write a file where new runs of the first experiment keep theirs, read it back, delete it."""
    (experiment,) = client.search_experiments(max_results=1)
    kept = f"{experiment.artifact_location}/.tmp-doctor-{uuid.uuid4().hex}"
    try:
        place = get_artifact_repository(kept, uri, uri)
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "written").write_bytes(b"qfactory doctor")
            place.log_artifact(str(Path(scratch, "written")))
            read = Path(place.download_artifacts("written", scratch)).read_bytes()
            place.delete_artifacts()
        assert read == b"qfactory doctor"
    except Exception as error:  # the clients of object stores have errors of their own
        raise UnfitServerError(
            f"does not keep files at {shown_uri(experiment.artifact_location)}: {reason_of(error)}",
            "mlflow server --artifacts-destination s3://BUCKET/artifacts ...  # where it runs",
        ) from error


def _explained(uri: str, error: MlflowException) -> UnfitServerError:
    if error.get_http_status_code() in (401, 403):
        return UnfitServerError(
            "refuses this process's credentials, or wants some",
            "export MLFLOW_TRACKING_TOKEN=...  # or MLFLOW_TRACKING_USERNAME and ..._PASSWORD",
        )
    if "mlflow db upgrade" in str(error):
        return UnfitServerError(
            "has the tables of another MLflow version", f"mlflow db upgrade {shown_uri(uri)}"
        )
    return UnfitServerError(f"does not answer: {reason_of(error)}", _start(uri))


def _start(uri: str) -> str:
    host, _, port = shown_uri(uri).rpartition("://")[2].partition("/")[0].partition(":")
    return f"mlflow server --host {host} --port {port or 80}  # on {host}"
