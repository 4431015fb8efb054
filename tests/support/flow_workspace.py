"""Workspaces for flows: one Ray and one Prefect server serve all of a process's tests.

The databases are there already: making their tables takes seconds.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest
from prefect.testing import utilities

from flows.settings import settings
from pipeline import cluster
from tests.support.mlflow_servers import new_database

_services = ExitStack()
PREFECT = str(Path(sys.executable).with_name("prefect"))


@contextmanager
def flow_workspace(folder: Path) -> Iterator[Path]:
    """Give a Ray of two cores, a Prefect server, and settings that point into `folder`.

    Ray and the server are this process's: names and folders keep its tests apart.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("QFACTORY_WORKSPACE", str(folder))
        patch.setenv("QFACTORY_REPORT_SECONDS", "0")
        patch.setenv("RAY_TRAIN_V2_ENABLED", "1")
        settings.cache_clear()
        new_database(folder)
        cluster.connect(None, cpus=2)
        _start_prefect()
        yield folder
    settings.cache_clear()


@cache
def _start_prefect() -> None:
    home = tempfile.mkdtemp()  # the harness removes it
    prefect_database(Path(home, "prefect-test.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: home)
        _services.enter_context(utilities.prefect_test_harness(server_startup_timeout=90))


def stop_services() -> None:
    """Stop this process's Ray and its Prefect server, if it has them."""
    _services.close()
    cluster.disconnect()


def embedded_workspace(folder: Path) -> dict[str, str]:
    """Make a workspace for the command line; return the variables that name it, without analyses.

    Its first command need not make Prefect's and MLflow's tables.
    """
    new_database(folder)
    prefect_database(folder / "prefect" / "prefect.db")
    return {"QFACTORY_WORKSPACE": str(folder), "QFACTORY_REPORT_SECONDS": "0"}


def prefect_database(file: Path) -> None:
    """Write an empty Prefect database with all its tables."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_empty_database())


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as home:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        subprocess.run(
            [PREFECT, "server", "database", "upgrade", "-y"],
            env={**environment, "PREFECT_HOME": home}, check=True, capture_output=True,
        )  # fmt: skip
        return Path(home, "prefect.db").read_bytes()
