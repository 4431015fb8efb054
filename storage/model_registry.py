"""Registered models in MLflow: pt2 without pickle, SHA-256 of every file, one guarded champion."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pytorch import load_model
from torch import nn

from storage.gate import CHALLENGER, CHAMPION, MARGIN_DB, Decision, GateScores, best_of, decide
from storage.mlflow_client import open_client
from storage.model_files import (
    RegistryError,
    check_exportable,
    check_files,
    digests_of,
    save_network,
)

DIGEST_TAG = "sha256:"  # then the file's path in the model's folder
GATE_TAG = "gate."
MOVES_TAG = "champion.moves"
SETTLING_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of a registered model."""

    name: str
    version: int
    tags: Mapping[str, str]
    run_id: str | None
    """The MLflow run that trained it."""
    aliases: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` and `mlflow.pytorch.load_model` take."""
        return f"models:/{self.name}/{self.version}"

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file of the model, by its path in the model's folder."""
        prefix = len(DIGEST_TAG)
        return {k[prefix:]: v for k, v in self.tags.items() if k.startswith(DIGEST_TAG)}


class ModelRegistry:
    """The registered models of one MLflow server (`http://`) or database (`sqlite:///`).

    Every method raises RegistryError when the server cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        """Open the registry; the server is first asked when a method is called."""
        self.uri = uri
        self._client = open_client(uri)

    def register(
        self,
        network: nn.Module,
        *,
        name: str,
        input_example: np.ndarray,
        tags: Mapping[str, str],
        run_id: str,
        description: str = "",
    ) -> RegisteredVersion:
        """Log a network to a run as an MLflow model and make it a new version of `name`.

        `network` maps (N,1,H,W) float32 in [0,1] to the same shape, is in evaluation mode, on the
        CPU, and exportable by torch.export; `input_example` is (2 or more,1,H,W) float32. The
        version appears at once with all its files and tags, or not at all. Raises ValueError for
        an unsuitable network and RegistryError when MLflow fails.
        """
        check_exportable(network, input_example)
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
                save_network(network, folder, input_example, model)
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
                {**tags, **{DIGEST_TAG + path: digest for path, digest in digests.items()}},
                description=description,
                model_id=logged.model_id,
            )
            return self.version(name, int(created.version))

    def version(self, name: str, version: int) -> RegisteredVersion:
        """Return one version. Raises RegistryError with the known ones when it is not there."""
        found = {v.version: v for v in self.versions(name)}
        if version not in found:
            raise RegistryError(f"{name} has no version {version}; there are {sorted(found)}")
        return found[version]

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
            _version_from(v, [a for a, number in aliases.items() if int(number) == int(v.version)])
            for v in found
            if v.status == "READY"
        ]
        return sorted(versions, key=lambda v: v.version, reverse=True)

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
        """Return what `models:/NAME/VERSION`, `models:/NAME@ALIAS` or NAME (champion) means."""
        name, at, alias = uri.removeprefix("models:/").partition("@")
        if not at and "/" in name:
            name, _, number = name.rpartition("/")
            if not number.isdigit():
                raise RegistryError(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
            return self.version(name, int(number))
        versions = self.versions(name)
        for found in versions:
            if (alias or CHAMPION) in found.aliases:
                return found
        if not versions:
            raise RegistryError(f"{uri}: unknown model; there are {sorted(self.list_models())}")
        raise RegistryError(
            f"{uri}: no version has the alias {alias or CHAMPION!r}; there are "
            f"{[found.uri for found in versions]}"
        )

    def download(self, uri: str, folder: Path) -> Path:
        """Copy a model's files below `folder` and check them; return the model's folder.

        Raises RegistryError when a file is missing, changed or added since it was registered.
        """
        found = self.resolve(uri)
        with self._explained(f"{found.uri} not downloaded"):
            source = self._client.get_model_version_download_uri(found.name, str(found.version))
            target = folder / f"{found.name}-{found.version}"
            target.mkdir(parents=True, exist_ok=True)
            local = download_artifacts(
                artifact_uri=source, dst_path=str(target), tracking_uri=self.uri
            )
        check_files(Path(local), found.digests, found.uri)
        return Path(local)

    def load(self, uri: str) -> nn.Module:
        """Return a registered network, its files checked: (N,1,H,W) float32 in [0,1] to the same.

        A pt2 archive with a pickle inside is refused. The network is ready for inference; torch
        supports no `train()` or `eval()` on it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.download(uri, Path(scratch))
            with self._explained(f"{uri} not loaded"):
                return load_model(str(folder))

    def promote(
        self,
        name: str,
        version: int,
        scores: GateScores,
        *,
        margin_db: float = MARGIN_DB,
        jpeg: GateScores | None = None,
    ) -> Decision:
        """Record a version's scores and give it the alias that `decide` says, with the reason.

        An alias belongs to one version at any time (MLflow's key), so there is never a second
        champion. MLflow cannot set an alias on a condition; of promotions that run at the same
        time against the same champion, each looks for the others after its move, and the best of
        them by the gate stays. A third promotion that starts while two are settling can be
        overtaken; promoting it again puts that right. A champion set by hand is respected.
        """
        with self._explained(f"{name} version {version} not promoted"):
            move = self._moves(name) + 1  # before the champion is read, so that rivals share it
            base = self.champion(name)
            if base is not None and base.version == version:
                decision = Decision(alias=CHAMPION, reason="it is the champion already")
                self._note(name, version, scores, decision)
                return decision
            decision = decide(scores, scores_of(base), margin_db, jpeg)
            self._note(name, version, scores, decision, move)
            if decision.alias == CHAMPION:
                best = self._crown(name, version, scores, move, margin_db)
                if best != version:
                    winner = scores_of(self.version(name, best))
                    decision = decide(scores, winner, margin_db)
                    self._note(name, version, scores, decision)
            if decision.alias == CHALLENGER:
                self._set_alias(name, CHALLENGER, version)
        return decision

    def _crown(
        self, name: str, version: int, scores: GateScores, move: int, margin_db: float
    ) -> int:
        """Make a version champion; return the one that stays it among those of the same move."""
        self._set_alias(name, CHAMPION, version)
        _insist(lambda: self._client.set_registered_model_tag(name, MOVES_TAG, str(move)))
        best = version
        for _ in range(SETTLING_ROUNDS):
            versions = self.versions(name)
            rivals = {v.version: found for v in versions if (found := _scores_in(v, move))}
            best = best_of({**rivals, version: scores}, margin_db)
            current = next((v.version for v in versions if CHAMPION in v.aliases), None)
            if current == best or current not in {*rivals, version, None}:
                break
            self._set_alias(name, CHAMPION, best)
        return best

    def _set_alias(self, name: str, alias: str, version: int) -> None:
        _insist(lambda: self._client.set_registered_model_alias(name, alias, str(version)))

    def _moves(self, name: str) -> int:
        return int(self._client.get_registered_model(name).tags.get(MOVES_TAG, 0))

    def _note(
        self,
        name: str,
        version: int,
        scores: GateScores,
        decision: Decision,
        move: int | None = None,
    ) -> None:
        qfs = " ".join(map(str, scores.qfs))
        notes = {**asdict(scores), "qfs": qfs, "reason": decision.reason}
        if move is not None:
            notes["move"] = move
        notes["decision"] = decision.alias  # last: rivals look at the others only with it
        for key, value in notes.items():
            self._client.set_model_version_tag(name, str(version), GATE_TAG + key, str(value))

    def _ensure_model(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"{what}: {error}. Check that {self.uri} can be reached, then do it again; "
                "nothing registered before is changed"
            ) from error


def _insist(write: Callable[[], object]) -> None:
    """Write, up to three times: another writer may insert the same row at the same moment."""
    for last in (False, False, True):
        try:
            write()
            return
        except MlflowException:
            if last:
                raise


def scores_of(version: RegisteredVersion | None) -> GateScores | None:
    """Return the gate scores that a version was promoted with; None if it has none.

    The tag `gate.qfs` holds the quality factors with spaces between them; versions promoted before
    there were blind networks have one, in `gate.qf`.
    """
    tags = version.tags if version is not None else {}
    if GATE_TAG + "decision" not in tags:
        return None
    qfs = tags.get(GATE_TAG + "qfs") or tags[GATE_TAG + "qf"]
    return GateScores(
        dataset=tags[GATE_TAG + "dataset"],
        qfs=tuple(map(int, qfs.split())),
        psnr=float(tags[GATE_TAG + "psnr"]),
        ssim=float(tags[GATE_TAG + "ssim"]),
        psnr_b=float(tags[GATE_TAG + "psnr_b"]),
    )


def _quoted(name: str) -> str:
    if "'" in name or '"' in name:
        raise RegistryError(f"model name {name!r}: quotes are not allowed in it")
    return f"'{name}'"


def _scores_in(version: RegisteredVersion, move: int) -> GateScores | None:
    """Return the scores of a version that was made champion in this move, else None."""
    wanted = {GATE_TAG + "decision": CHAMPION, GATE_TAG + "move": str(move)}
    return scores_of(version) if wanted.items() <= version.tags.items() else None


def _version_from(found: ModelVersion, aliases: Iterable[str]) -> RegisteredVersion:
    return RegisteredVersion(
        name=found.name,
        version=int(found.version),
        tags=MappingProxyType(dict(found.tags)),
        run_id=found.run_id or None,
        aliases=tuple(sorted(aliases)),
    )
