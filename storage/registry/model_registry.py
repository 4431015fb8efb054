"""Registered models in MLflow: pt2 without pickle, SHA-256 of every file, one guarded champion."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pytorch import load_model
from torch import nn

from storage.registry.consumer_files import ServedCode
from storage.registry.gate import CHAMPION, GateScores
from storage.registry.model_files import PROGRAM, check_exportable, save_network
from storage.registry.promotion import Promotions
from storage.registry.registered_version import (
    DIGEST_TAG,
    RegisteredVersion,
    RegistryError,
    check_files,
    digests_of,
    explained,
    scores_of,
    version_from,
)
from storage.tracking.mlflow_client import open_client

FileState = Literal["verified", "changed", "missing", "added"]
"""How a file of a model is, compared with when it was registered."""

__all__ = [
    "FileState",
    "GateScores",
    "ModelRegistry",
    "RegisteredVersion",
    "RegistryError",
    "scores_of",
]


class ModelRegistry:
    """The registered models of one MLflow server (`http://`) or database (`sqlite:///`).

    Every method raises RegistryError when the server cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        """Open the registry; the server is first asked when a method is called."""
        self.uri = uri
        self._client = open_client(uri)
        self.promotions = Promotions(self._client, self.versions, self._explained)

    def register(
        self,
        network: nn.Module,
        *,
        name: str,
        input_example: np.ndarray | Sequence[np.ndarray],
        tags: Mapping[str, str],
        run_id: str,
        description: str = "",
        served: ServedCode | None = None,
    ) -> RegisteredVersion:
        """Log a network to a run as an MLflow model and make it a new version of `name`.

        `network` maps (N,1,H,W) float32 in [0,1] to the same shape, is in evaluation mode, on the
        CPU, and exportable by torch.export; `input_example` is (2 or more,1,H,W) float32. One that
        needs quantisation tables, (N,8,8) float32, takes them behind it and has two examples.
        `served` is the code that MLflow's pyfunc runs, with ONNX beside; None registers the network
        alone, for arrays. The version appears at once with all its files and tags, or not at all.
        Raises ValueError for an unsuitable network and RegistryError when MLflow fails.
        """
        examples = (input_example,) if isinstance(input_example, np.ndarray) else input_example
        check_exportable(network, examples)
        with tempfile.TemporaryDirectory() as scratch, self._explained(f"{name} not registered"):
            folder = Path(scratch) / "model"
            run = self._client.get_run(run_id)
            logged = self._client.create_logged_model(
                run.info.experiment_id, name, run_id, dict(tags), model_type="restoration"
            )
            try:
                model = Model(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                )
                written = save_network(network, folder, examples, model, served)
                digests = digests_of(folder)
                self._client.log_model_artifacts(logged.model_id, str(folder))
            except BaseException:
                self._client.finalize_logged_model(logged.model_id, "FAILED")
                raise
            self._client.finalize_logged_model(logged.model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
            self._ensure_model(name)
            created = self._client.create_model_version(
                name,
                logged.artifact_location,
                run_id,
                {**tags, **written, **{DIGEST_TAG + path: sha for path, sha in digests.items()}},
                description=description,
                model_id=logged.model_id,
            )
            return self.version(name, int(created.version))

    def version(self, name: str, version: int) -> RegisteredVersion:
        """Return one version. Raises RegistryError with the known ones when it is not there."""
        return self.resolve(f"models:/{name}/{version}")

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Return all versions of a model, newest first; empty for an unknown model."""
        with self._explained(f"{name}: versions not listed"):
            models = self._client.search_registered_models(f"name = {_quoted(name)}")
            if not models:
                return []
            found, token = [], None
            while token != "":
                page = self._client.search_model_versions(
                    f"name = {_quoted(name)}", page_token=token
                )
                found, token = [*found, *page], page.token or ""
        aliases = models[0].aliases
        versions = [
            version_from(v, [a for a, number in aliases.items() if int(number) == int(v.version)])
            for v in found
            if v.status == "READY"
        ]
        return sorted(versions, key=lambda v: v.version, reverse=True)

    def known_versions(self, name: str) -> list[RegisteredVersion]:
        """Return the versions of a model, newest first. Raises RegistryError that lists models."""
        if versions := self.versions(name):
            return versions
        raise RegistryError(f"{name}: unknown model; there are {sorted(self.list_models())}")

    def find_version(self, name: str, tags: Mapping[str, str]) -> RegisteredVersion | None:
        """Return the newest version that has all these tags, such as recipe and store version."""
        return next((v for v in self.versions(name) if tags.items() <= v.tags.items()), None)

    def champion(self, name: str) -> RegisteredVersion | None:
        """Return the version that holds the alias `champion`; None if there is none."""
        return next((v for v in self.versions(name) if CHAMPION in v.aliases), None)

    def list_models(self) -> dict[str, list[RegisteredVersion]]:
        """Return all versions of all models, by name in alphabetical order, newest first."""
        with self._explained("models not listed"):
            names, token = [], None
            while token != "":
                page = self._client.search_registered_models(page_token=token)
                names, token = [*names, *(model.name for model in page)], page.token or ""
        return {name: self.versions(name) for name in sorted(names)}

    def resolve(self, uri: str) -> RegisteredVersion:
        """Return what `models:/NAME/VERSION`, `models:/NAME@ALIAS` or NAME (champion) means.

        `models:/` may be left out. Raises RegistryError with the models, versions or aliases that
        there are.
        """
        name, at, alias = uri.removeprefix("models:/").partition("@")
        number = ""
        if not at and "/" in name:
            name, _, number = name.rpartition("/")
            if not number.isdigit():
                raise RegistryError(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
        versions = self.known_versions(name)
        if number:
            return _chosen(versions, int(number))
        for found in versions:
            if (alias or CHAMPION) in found.aliases:
                return found
        held = {name: found.version for found in reversed(versions) for name in found.aliases}
        aliases = ", ".join(f"@{name} (version {number})" for name, number in sorted(held.items()))
        raise RegistryError(
            f"{uri}: no version has the alias {alias or CHAMPION!r}; there are {aliases or 'none'} "
            f"and {[found.uri for found in versions]}"
        )

    def download(self, uri: str, folder: Path) -> Path:
        """Copy a model's files below `folder` and check them; return the model's folder.

        Raises RegistryError when a file is missing, changed or added since it was registered.
        """
        found = self.resolve(uri)
        local = self._copy(found, folder)
        check_files(local, found.digests, found.uri)
        return local

    def file_states(self, version: RegisteredVersion) -> dict[str, FileState]:
        """Download a version's files and compare each with its SHA-256; path -> what came out."""
        with tempfile.TemporaryDirectory() as scratch:
            there = digests_of(self._copy(version, Path(scratch)))
        recorded = version.digests
        return {
            path: _state(there.get(path), recorded.get(path))
            for path in sorted(there.keys() | recorded.keys())
        }

    def _copy(self, version: RegisteredVersion, folder: Path) -> Path:
        with self._explained(f"{version.uri} not downloaded"):
            source = self._client.get_model_version_download_uri(version.name, str(version.version))
            target = folder / f"{version.name}-{version.version}"
            target.mkdir(parents=True, exist_ok=True)
            return Path(
                download_artifacts(artifact_uri=source, dst_path=str(target), tracking_uri=self.uri)
            )

    def load(self, uri: str) -> nn.Module:
        """Return a registered network, its files checked: (N,1,H,W) float32 in [0,1] to the same.

        A pt2 archive with a pickle inside is refused. The network is ready for inference; torch
        supports no `train()` or `eval()` on it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.download(uri, Path(scratch))
            with self._explained(f"{uri} not loaded"):
                return load_model(str(folder))

    def program(self, uri: str) -> bytes:
        """Return a registered network's torch.export program, for machines without a registry.

        Raises RegistryError for files that are not those that were registered, and for a program
        with a pickle inside.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.download(uri, Path(scratch))
            try:
                load_model(str(folder))
            except MlflowException as error:
                raise RegistryError(f"{uri} is not used: {error}") from None
            return (folder / PROGRAM).read_bytes()

    def _ensure_model(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _explained(self, what: str) -> AbstractContextManager[None]:
        return explained(self.uri, what)


def _chosen(versions: Sequence[RegisteredVersion], number: int) -> RegisteredVersion:
    for found in versions:
        if found.version == number:
            return found
    known = sorted(found.version for found in versions)
    raise RegistryError(f"{versions[0].name} has no version {number}; there are {known}")


def _state(there: str | None, recorded: str | None) -> FileState:
    if there is None or recorded is None:
        return "missing" if there is None else "added"
    return "verified" if there == recorded else "changed"


def _quoted(name: str) -> str:
    if "'" in name or '"' in name:
        raise RegistryError(f"model name {name!r}: quotes are not allowed in it")
    return f"'{name}'"
