"""Where everything lies: the one module that reads and sets environment variables."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.logs import OURS
from storage import files
from storage.tracking import moved_workspace

PROJECT = Path(__file__).resolve().parent.parent

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(OURS),
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # as the server answers while its database is away
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # the end of a training is seen that much later
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


class Settings(BaseSettings):
    """Settings of this process; unset, everything is embedded below `./workspace`.

    Setting any of `PREFECT_API_URL`, `RAY_ADDRESS`, `MLFLOW_TRACKING_URI` and the URIs below turns
    the same commands into a cluster run.
    """

    model_config = SettingsConfigDict(env_prefix="QFACTORY_", frozen=True, populate_by_name=True)

    workspace: Path = Path("workspace")
    """Folder of the embedded default."""
    datasets: str | None = None
    """Folder or URI of the datasets, laid out as LIVE1/, Classic5/, BSDS500/, DIV2K/."""
    stores: str | None = None
    """URI below which patch stores are made when a command names none."""
    checkpoints: str | None = None
    """URI of the checkpoints; all nodes must reach it."""
    workers: int = Field(default=1, ge=1)
    """Training workers a recipe, one GPU each where the cluster has some."""
    report_seconds: float = Field(default=10, ge=0, allow_inf_nan=False)
    """Seconds that the analyses in a report may take, about; at 0 it has none."""
    commit: str | None = None
    """Commit of the code where it is not a git checkout, such as in an image."""
    log_format: Literal["text", "json"] = "text"
    """What commands write about their work to stderr: sentences, or a JSON object a line."""
    tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    ray_address: str | None = Field(default=None, validation_alias="RAY_ADDRESS")
    ray_auth_mode: str | None = Field(default=None, validation_alias="RAY_AUTH_MODE")
    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")

    @property
    def root(self) -> Path:
        """The workspace as an absolute path."""
        return self.workspace.absolute()

    @property
    def datasets_root(self) -> str:
        """Where datasets are looked for and fetched to."""
        return self.datasets or str(self.root / "datasets")

    @property
    def stores_root(self) -> str:
        """Where patch stores are made."""
        return self.stores or str(self.root / "stores")

    @property
    def checkpoints_root(self) -> str:
        """Where trainings keep their checkpoints."""
        return self.checkpoints or str(self.root / "checkpoints")

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking and registry server, or a SQLite file."""
        return self.tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def has_mlflow(self) -> bool:
        """Whether MLflow was used before, or is a server; asking for it makes no database."""
        path = self.mlflow_uri.removeprefix("sqlite:///")
        return path == self.mlflow_uri or Path(path).exists()

    @property
    def artifact_root(self) -> str | None:
        """Where an embedded MLflow puts artifacts; None leaves it to the server."""
        return None if self.tracking_uri else (self.root / "artifacts").as_uri()

    @property
    def reports(self) -> Path:
        """Local folder of pictures and tables made for people."""
        return self.root / "reports"

    def store_uri(self, store: str) -> str:
        """Return where a store is that a user names: by its path, its URI, or its name.

        A name, without a `/`, is that of a folder here, else of a store below `stores_root`.
        """
        is_place = "/" in store or Path(store).exists()
        return store if is_place else files.join(self.stores_root, store)


@cache
def settings() -> Settings:
    """Return this process's settings, read once. Raises ValueError that names a bad variable."""
    return Settings()


def prepare_environment() -> None:
    """Set what Prefect, Ray and MLflow read when they are imported, unless the user has set it.

    Called before they are imported: Prefect fixes its home folder at that moment. The paths in a
    workspace that was moved follow it.
    """
    if settings().tracking_uri is None and settings().has_mlflow:
        moved_workspace.follow(settings().root / "mlflow.db")
    if not settings().prefect_api_url:
        (settings().root / "prefect").mkdir(parents=True, exist_ok=True)
    embedded = {
        "PREFECT_HOME": str(settings().root / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    wanted = QUIET | ({} if settings().prefect_api_url else embedded)
    if settings().ray_address is None:  # one machine: no node is taken away before the others
        wanted |= {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def use_prefect_server(url: str) -> None:
    """Let Prefect, which is not imported yet, and what this process starts, use a server."""
    os.environ["PREFECT_API_URL"] = url


@cache
def git_commit() -> str:
    """Return the commit of the project's checkout, with `-dirty` for local changes.

    Where the code is not a git checkout (an installed wheel or an image) it is what `commit` of
    the settings says, else `unknown`.
    """
    if commit := settings().commit:
        return commit
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
