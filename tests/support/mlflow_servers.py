"""MLflow databases and servers for tests: real ones, on loopback, in temporary folders."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tests.support.made_once import made_once


def new_database(folder: Path) -> str:
    """Return the URI of an empty MLflow database in a folder; the tables are made only once."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlflow.db").write_bytes(_empty_database())
    return f"sqlite:///{folder}/mlflow.db"


@contextmanager
def running_server(folder: Path, port: int) -> Iterator[str]:
    """Run `mlflow server` on a database in `folder`; it is killed hard at the end."""
    if not (folder / "mlflow.db").exists():
        new_database(folder)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={
                **os.environ,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # five processes that none needs
            },
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(uri, process, folder / "server.log")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serving(model: str, log: Path, port: int, environment: dict[str, str]) -> Iterator[str]:
    """Run `mlflow models serve` for `models:/...`, by the first mlflow on the environment's PATH.

    Yields where requests are posted to; the server is killed hard at the end.
    """
    command = [shutil.which("mlflow", path=environment["PATH"]) or "mlflow", "models", "serve"]
    command += ["-m", model, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_up(uri: str, process: subprocess.Popen, log: Path, patience_s: float = 300) -> None:
    until = time.monotonic() + patience_s
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


@cache
def _empty_database() -> bytes:
    return made_once(f"mlflow-{version('mlflow')}.db", _make_database)


def _make_database(folder: Path) -> bytes:
    from mlflow import MlflowClient  # takes seconds, and most processes find the database made

    MlflowClient(tracking_uri=f"sqlite:///{folder}/empty.db").search_experiments()
    return (folder / "empty.db").read_bytes()
