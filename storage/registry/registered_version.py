"""What the registry tells of one version of a model, and how MLflow's errors are passed on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from mlflow.entities.model_registry import ModelVersion

from storage.registry.gate import GateScores, scores_in
from storage.registry.model_files import RegistryError
from storage.shown import shown_uri

DIGEST_TAG = "sha256:"  # then the file's path in the model's folder

VersionsOf = Callable[[str], "list[RegisteredVersion]"]
"""Returns all versions of a model, newest first."""


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
