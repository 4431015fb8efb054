"""Registered versions and their history as rows for people and for JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from storage.registry.champion_history import HistoryEntry
from storage.registry.gate import CHALLENGER, CHAMPION
from storage.registry.registered_version import RegisteredVersion, scores_of

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
HOW = {"gate": "gate", "force": "forced", "rollback": "rolled back to", "outside": "set outside"}


def model_row(versions: Sequence[RegisteredVersion]) -> dict[str, str]:
    """Return a model's row of a table: the scores and the age are the champion's.

    Where there is no champion they are the newest version's. `versions` is newest first and not
    empty.
    """
    champion, challenger = _holder(versions, CHAMPION), _holder(versions, CHALLENGER)
    told = champion or versions[0]
    scores = scores_of(told)
    return {
        "model": told.name,
        "champion": f"{champion.version if champion else 'none'} of {len(versions)}",
        "challenger": str(challenger.version) if challenger else "none",
        "gate set": scores.label if scores else "none",
        "psnr": f"{scores.psnr:.2f}" if scores else "",
        "ssim": f"{scores.ssim:.4f}" if scores else "",
        "psnr_b": f"{scores.psnr_b:.2f}" if scores else "",
        "recipe": told.tags.get("recipe", "unknown"),
        "age": age(told.created),
    }


def model_json(versions: Sequence[RegisteredVersion]) -> dict[str, object]:
    """Return a model and all its versions for JSON, newest first."""
    champion, challenger = _holder(versions, CHAMPION), _holder(versions, CHALLENGER)
    return {
        "model": versions[0].name,
        "champion": champion.version if champion else None,
        "challenger": challenger.version if challenger else None,
        "versions": [version_json(version) for version in versions],
    }


def history_rows(history: Iterable[HistoryEntry]) -> list[dict[str, str]]:
    """Return who was made champion, when, how, by whom and why, oldest first."""
    return [
        {
            "when (UTC)": entry.move.when.isoformat(" ", "seconds").removesuffix("+00:00"),
            "version": "none" if entry.move.version is None else str(entry.move.version),
            "how": HOW[entry.move.kind] if entry.refused is None else "overtaken",
            "by": entry.move.by,
            "why": entry.refused or entry.move.reason,
        }
        for entry in history
    ]


def entry_json(entry: HistoryEntry) -> dict[str, object]:
    """Return one entry of the history for JSON; `refused` is None where it took place."""
    move = entry.move
    return {
        "when": move.when.isoformat(),
        "version": move.version,
        "before": move.base,
        "how": move.kind,
        "by": move.by,
        "reason": move.reason,
        "withdraws": list(move.withdraws),
        "refused": entry.refused,
    }


def age(created: datetime | None) -> str:
    """Return how long ago something was, in its largest unit: `3 d`, `5 min`."""
    if created is None:
        return "unknown"
    seconds = max(0, int((datetime.now(UTC) - created).total_seconds()))
    size, unit = next(((s, u) for s, u in UNITS if seconds >= s), UNITS[-1])
    return f"{seconds // size} {unit}"


def version_json(version: RegisteredVersion) -> dict[str, object]:
    """Return what the registry tells of a version, and the gate of its scores, for JSON."""
    scores, tags = scores_of(version), version.tags
    return {
        "uri": version.uri,
        "version": version.version,
        "aliases": list(version.aliases),
        "created": version.created.isoformat() if version.created else None,
        "recipe": tags.get("recipe"),
        "gate": asdict(scores) if scores else None,
        "decision": tags.get("gate.decision"),
        "reason": tags.get("gate.reason"),
    }


def _holder(versions: Iterable[RegisteredVersion], alias: str) -> RegisteredVersion | None:
    return next((version for version in versions if alias in version.aliases), None)
