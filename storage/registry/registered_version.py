"""One version of a model: what the registry tells of it, its files' SHA-256, and its errors."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from mlflow.entities.model_registry import ModelVersion

from storage.registry.gate import GateScores, scores_in
from storage.shown import shown_uri

DIGEST_TAG = "sha256:"  # then the file's path in the model's folder
LOAD_NOTE = "registered_model_meta"

VersionsOf = Callable[[str], "list[RegisteredVersion]"]
"""Returns all versions of a model, newest first."""


class RegistryError(Exception):
    """The registry cannot do what was asked; the message names the next step."""


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of a registered model."""

    name: str
    version: int
    tags: Mapping[str, str]
    run_id: str | None
    """The MLflow run that trained it."""
    aliases: tuple[str, ...] = ()
    description: str = ""
    """The model card, Markdown."""
    created: datetime | None = None
    """UTC; None for a version that was not read from a registry."""

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` and `mlflow.pytorch.load_model` take."""
        return f"models:/{self.name}/{self.version}"

    @property
    def qfs(self) -> tuple[int, ...]:
        """JPEG quality factors that it was trained for; none where that is not known."""
        return tuple(int(qf) for qf in self.tags.get("qfs", "").split() if qf.isdigit())

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file of the model, by its path in the model's folder."""
        prefix = len(DIGEST_TAG)
        return {k[prefix:]: v for k, v in self.tags.items() if k.startswith(DIGEST_TAG)}


def scores_of(version: RegisteredVersion | None) -> GateScores | None:
    """Return the scores that the gate last saw of a version; None if it has none."""
    return None if version is None else scores_in(version.tags)


def version_from(found: ModelVersion, aliases: Iterable[str]) -> RegisteredVersion:
    """Read a version from MLflow's own."""
    return RegisteredVersion(
        name=found.name,
        version=int(found.version),
        tags=MappingProxyType(dict(found.tags)),
        run_id=found.run_id or None,
        aliases=tuple(sorted(aliases)),
        description=found.description or "",
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
    )


def digests_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path relative to the folder.

    MLflow writes a note of its own, LOAD_NOTE, into a local model's folder when it is loaded by
    name; it is not part of the model. Python's byte caches are not left out, because they are code
    that runs: where code travels, consumer_files.BYTE_CACHE keeps Python from writing any.
    """
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in found if path.relative_to(folder).as_posix() != LOAD_NOTE]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def check_files(folder: Path, expected: Mapping[str, str], uri: str) -> None:
    """Compare a folder with recorded digests. Raises RegistryError that names the files."""
    found = digests_of(folder)
    if not expected:
        raise RegistryError(f"{uri} has no SHA-256 tags: it was not registered by qfactory")
    wrong = sorted(p for p in found.keys() | expected.keys() if found.get(p) != expected.get(p))
    if wrong:
        raise RegistryError(
            f"{uri}: {', '.join(wrong)} changed since it was registered; do not use it. "
            "Restore its files from a backup or register the network again"
        )


@contextmanager
def explained(uri: str, what: str) -> Iterator[None]:
    """Turn MLflow's, the system's and object stores' errors into RegistryError with a next step."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:  # the clients of object stores have errors of their own
        if isinstance(error, ValueError) and not isinstance(error, OSError):  # some are both
            raise
        raise RegistryError(
            shown_uri(
                f"{what}: {error}. Check that {uri} can be reached, and the store of its files, "
                "then do it again; nothing registered before is changed"
            )
        ) from error
