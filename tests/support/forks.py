"""Processes of their own that begin with torch and MLflow imported, which takes seconds."""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
"""Its one server imports what is named here and nothing of the project."""
FORKS.set_forkserver_preload(["torch", "mlflow", "cyclopts", "pydantic_settings"])
