"""Where people look afterwards: MLflow's and Prefect's pages."""

import sys
from pathlib import Path
from shutil import which

from prefect.artifacts import create_link_artifact

from flows.settings import settings
from storage.shown import shown_uri
from storage.tracking.tracked_run import TrackedRun

MLFLOW_PAGE = "http://127.0.0.1:5000"


def mlflow_command() -> str:
    """Return the command that opens MLflow's pages."""
    if settings().tracking_uri:
        return f"open {shown_uri(settings().mlflow_uri)}"
    return f"{_tool('mlflow')} ui --backend-store-uri {settings().mlflow_uri}"


def prefect_command() -> str:
    """Return the command that opens Prefect's pages."""
    if settings().prefect_api_url:
        return f"open {settings().prefect_api_url}".removesuffix("/api")
    return f"PREFECT_HOME={settings().root / 'prefect'} {_tool('prefect')} server start"


def mlflow_server() -> str:
    """Return the address of MLflow's pages, without a password."""
    return shown_uri(settings().tracking_uri or MLFLOW_PAGE)


def link_artifact(run: TrackedRun) -> None:
    """Leave a link to the MLflow run as a Prefect artifact; nothing if it was not recorded."""
    if page := run.page_at(mlflow_server()):
        text = f"MLflow run {run.name}"
        create_link_artifact(
            page,
            text if settings().tracking_uri else f"{text} (first: {mlflow_command()})",
            key="mlflow-run",
        )


def _tool(name: str) -> str:
    """Return how to call a tool of this environment: by name where the shell finds it."""
    ours = Path(sys.executable).with_name(name)
    return name if which(name) == str(ours) else str(ours)
