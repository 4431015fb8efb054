"""Commands about registered models: list, show, promote, roll back. No Prefect, no Ray."""

import getpass
import sys

from rich.markup import escape

from flows.console import notes, out, print_json, show_table
from flows.reporting.registry_views import (
    age,
    entry_json,
    history_rows,
    model_json,
    model_row,
    version_json,
)
from flows.settings import settings
from storage.registry.consumer_files import BYTE_CACHE
from storage.registry.gate import CHAMPION, JPEG_TAG, scores_in
from storage.registry.model_registry import ModelRegistry, RegisteredVersion
from storage.registry.registered_version import DIGEST_TAG, RegistryError, scores_of
from storage.shown import shown_uri

NOT_CHECKED = "not checked"
CHANGED = 1
LONG_TAGS = ("recipe_settings", "scores")
SPARE = ("psnr_b", "recipe", "ssim", "age")


def list_models(*, json: bool = False) -> None:
    """List the registered models: versions, champion, challenger, the champion's gate scores.

    Args:
        json: print one JSON array, every version in it, and nothing else
    """
    found = ModelRegistry(settings().mlflow_uri).list_models() if settings().has_mlflow else {}
    models = [versions for versions in found.values() if versions]
    if json:
        print_json([model_json(versions) for versions in models])
        return
    show_table([model_row(versions) for versions in models], "registered models", spare=SPARE)
    if not models:
        notes.print("`qfactory study` trains and registers a network")


def show_model(model: str, *, json: bool = False) -> None:
    """Show a version: its card, tags, files compared with their digests, who was champion when.

    Exit code 1 if a file is not as it was registered.

    Args:
        model: NAME (its champion), NAME@ALIAS, NAME/VERSION, or the same behind models:/
        json: print one JSON object and nothing else
    """
    registry = open_registry()
    found = registry.resolve(model)
    files = _checked_files(registry, found)
    history = registry.promotions.history(found.name)
    tags = {k: v for k, v in sorted(found.tags.items()) if not k.startswith(DIGEST_TAG)}
    if json:
        version = version_json(found)
        about = {"name": found.name, "run_id": found.run_id, "description": found.description}
        entries = [entry_json(entry) for entry in history]
        print_json({**version, **about, "tags": tags, "files": files, "history": entries})
    else:
        _print_version(found, registry.uri)
        shown = [{"tag": k, "value": v} for k, v in tags.items() if k not in LONG_TAGS]
        show_table(shown, "\ntags")
        listed = [row for row in files if not _is_byte_cache(row)]
        show_table([{**row, "sha256": row["sha256"][:12]} for row in listed], "\nfiles")
        show_table(history_rows(history), f"\nchampions of {found.name}")
    if any(row["state"] not in ("verified", NOT_CHECKED) for row in files):
        sys.exit(CHANGED)


def promote(model: str, *, force: bool = False, reason: str | None = None) -> None:
    """Make a version champion if the gate passes it by its recorded scores, else challenger.

    Exit code 2 and the reason if the gate does not pass it. A version that was rolled back never
    passes again; --force brings it back.

    Args:
        model: NAME/VERSION or NAME@challenger
        force: make it champion whatever the gate says; tags tell who did, when and why
        reason: why, with --force
    """
    registry = open_registry()
    found = registry.resolve(model)
    if force != (reason is not None):
        raise ValueError("--force needs --reason TEXT, and --reason goes with --force")
    if reason is not None:
        decision = registry.promotions.force(
            found.name, found.version, by=user_name(), reason=reason
        )
    else:
        scores = scores_of(found)
        if scores is None:
            raise RegistryError(
                f"{found.uri} has no gate scores: `qfactory study` and `qfactory train` record "
                "them; --force --reason TEXT promotes it without"
            )
        jpeg = scores_in(found.tags, JPEG_TAG)
        decision = registry.promotions.promote(
            found.name, found.version, scores, jpeg=jpeg, by=f"the gate, for {user_name()}"
        )
    if decision.alias != CHAMPION:
        raise RegistryError(
            f"{found.uri} is not promoted, it is @challenger now: {decision.reason}. "
            "--force --reason TEXT promotes it all the same"
        )
    out.print(f"{found.uri} is @champion: {decision.reason}", markup=False)


def rollback(model: str, *, to: int | None = None, reason: str = "no reason given") -> None:
    """Give the alias champion back to the version that had it before.

    The champions after it are withdrawn: the gate does not promote them again, nor a version of the
    same weights, until someone does with --force. Rolling back again goes one further back.

    Args:
        model: NAME
        to: an earlier champion; by default the last one before
        reason: why; the versions that are left carry it as a tag
    """
    registry = open_registry()
    name = model.removeprefix("models:/").removesuffix(f"@{CHAMPION}")
    if "/" in name or "@" in name:
        raise ValueError(f"{model}: give the model's NAME alone, and an earlier champion with --to")
    registry.known_versions(name)
    move = registry.promotions.rollback(name, by=user_name(), reason=reason, to=to)
    left = ", ".join(map(str, move.withdraws)) or "none"
    champion = registry.champion(name)
    if champion is None or champion.version != move.version:
        raise RegistryError(
            f"{name} was rolled back to version {move.version}, and someone moved the champion "
            f"right after that: `qfactory models show {name}` tells who"
        )
    out.print(
        f"{champion.uri} is @champion, it was version {move.base}; withdrawn: {left}", markup=False
    )


def open_registry() -> ModelRegistry:
    """Open the registry. Raises ValueError with the next step where none was made yet."""
    if not settings().has_mlflow:
        raise ValueError(
            f"nothing is registered yet, {settings().mlflow_uri} is not there: `qfactory study` "
            "trains and registers a network"
        )
    return ModelRegistry(settings().mlflow_uri)


def user_name() -> str:
    """Return who runs this process; `unknown` where the system does not tell."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def _checked_files(registry: ModelRegistry, found: RegisteredVersion) -> list[dict[str, str]]:
    """Return path, recorded SHA-256 and state of every file."""
    recorded = found.digests
    try:
        states = registry.file_states(found)
    except RegistryError as error:
        notes.print(f"[yellow]WARNING[/] the files were not checked: {escape(str(error))}")
        states = dict.fromkeys(recorded, NOT_CHECKED)
    return [
        {"file": path, "sha256": recorded.get(path, ""), "state": state}
        for path, state in states.items()
    ]


def _is_byte_cache(row: dict[str, str]) -> bool:
    """Tell whether a file only keeps Python from making a folder there, and is as registered."""
    return row["file"].endswith(f"/{BYTE_CACHE}") and row["state"] == "verified"


def _print_version(found: RegisteredVersion, uri: str) -> None:
    aliases = "".join(f" @{alias}" for alias in found.aliases)
    out.print(f"{found.uri}{aliases}, registered {age(found.created)} ago\n", markup=False)
    out.print(found.description or "It has no model card.", markup=False)
    out.print(f'\nbefore loading: mlflow.set_tracking_uri("{shown_uri(uri)}")', markup=False)
