"""Embedded workspaces, whose databases are there already: making their tables takes seconds."""

import os
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tests.support.made_once import made_once
from tests.support.mlflow_servers import new_database

PREFECT = str(Path(sys.executable).with_name("prefect"))


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
    return made_once(f"prefect-{version('prefect')}.db", _make_database)


def _make_database(home: Path) -> bytes:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    subprocess.run(
        [PREFECT, "server", "database", "upgrade", "-y"],
        env={**environment, "PREFECT_HOME": str(home)}, check=True, capture_output=True,
    )  # fmt: skip
    return (home / "prefect.db").read_bytes()
