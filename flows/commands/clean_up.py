"""The command that removes what nothing needs any more."""

from collections.abc import Iterator

from flows.console import notes, out, print_json, show_table
from flows.settings import settings
from pipeline.training.job import parse_seconds
from storage.retention import Garbage, checkpoint_garbage, store_garbage
from storage.shown import shown_uri


def gc(*, delete: bool = False, older_than: str = "7d", json: bool = False) -> None:
    """List what nothing needs any more, with sizes and reasons, and remove it if asked to.

    Checkpoints of trainings that are finished and registered, files of Ray Train and of killed
    builds and trainings, artifacts of runs that were deleted in MLflow. What is younger stays, and
    what a running command works on. Old versions of a store are for `qfactory patches gc`.

    Args:
        delete: remove it; otherwise nothing is changed
        older_than: only what was not written for so long, such as 12h or 30d
        json: print one JSON object and nothing else
    """
    found = [*_garbage(parse_seconds(older_than))]
    if delete:
        for garbage in found:
            garbage.remove()
    total = sum(garbage.bytes for garbage in found)
    rows = [
        {"MB": round(g.bytes / 1e6, 1), "files": g.files, "why": g.why, "what": shown_uri(g.place)}
        for g in found
    ]
    if json:
        print_json({"deleted": delete, "bytes": total, "places": rows})
        return
    show_table(rows, f"what was not needed for {older_than}")
    verb = "removed" if delete else "would remove"
    out.print(f"{verb} {sum(g.files for g in found)} files, {total / 1e6:.1f} MB")
    if found and not delete:
        notes.print("qfactory gc --delete does it")


def _garbage(older_than_s: float) -> Iterator[Garbage]:
    known = settings()
    yield from store_garbage(known.stores_root, older_than_s=older_than_s)
    registered = _registered_weights() if known.has_mlflow else {}
    yield from checkpoint_garbage(known.checkpoints_root, registered, older_than_s=older_than_s)
    if known.has_mlflow:
        from storage.tracking.deleted_runs import run_garbage  # MLflow takes seconds to import

        yield from run_garbage(known.mlflow_uri, older_than_s=older_than_s)


def _registered_weights() -> dict[str, str]:
    """Return URI -> SHA-256 of the weights of every registered version."""
    from storage.registry.model_registry import ModelRegistry  # MLflow takes seconds to import

    models = ModelRegistry(settings().mlflow_uri).list_models()
    return {
        version.tags["weights"]: version.tags["weights_sha256"]
        for versions in models.values()
        for version in versions
        if {"weights", "weights_sha256"} <= version.tags.keys()
    }
