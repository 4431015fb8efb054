"""Workspaces for flows: one Ray and one Prefect server serve all of a process's tests.

The databases are there already: making their tables takes seconds.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest
from prefect.testing import utilities

from flows.settings import settings
from pipeline import cluster
from tests.support.embedded import prefect_database
from tests.support.mlflow_servers import new_database

_services = ExitStack()


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
