"""Registered networks as the bytes of their program, for machines that reach no registry."""

import tempfile
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.pytorch import load_model

from storage.registry.model_files import PROGRAM, RegistryError
from storage.registry.model_registry import ModelRegistry

PROGRAM_DIGEST = f"sha256:{PROGRAM}"
"""Tag of a registered version that holds the SHA-256 of these bytes."""


def checked_program(registry: ModelRegistry, uri: str) -> bytes:
    """Return the torch.export program of a registered network, downloaded once.

    Raises RegistryError for files that are not those that were registered, and for a program with
    a pickle inside.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = registry.download(uri, Path(scratch))
        try:
            load_model(str(folder))
        except MlflowException as error:
            raise RegistryError(f"{uri} is not used: {error}") from None
        return (folder / PROGRAM).read_bytes()
