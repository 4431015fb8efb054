"""A workspace for flows that run in the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.settings import settings
from pipeline import cluster


@contextmanager
def flow_workspace(folder: Path) -> Iterator[Path]:
    """Give a Ray of two cores, a Prefect server, and settings that point into `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("QFACTORY_WORKSPACE", str(folder))
        patch.setenv("RAY_TRAIN_V2_ENABLED", "1")
        settings.cache_clear()
        cluster.connect(None, cpus=2)
        with prefect_test_harness(server_startup_timeout=90):
            yield folder
        cluster.disconnect()
    settings.cache_clear()
