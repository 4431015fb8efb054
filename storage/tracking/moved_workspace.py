"""A workspace that was moved: MLflow's database holds absolute paths, which follow it."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns with file:// URIs."""
ARTIFACTS = "/artifacts/"

logger = logging.getLogger(__name__)


def follow(database: Path) -> None:
    """Change the paths in an MLflow database to where its `artifacts` are now, beside it.

    Nothing happens where they are as recorded, or where the recorded folder is still there: the
    workspace was copied then. Paths of trained weights, in `checkpoints` beside it, change too.
    """
    root = database.absolute().parent
    try:
        with closing(sqlite3.connect(database)) as opened, opened:
            for old in sorted(_moved_from(opened, root)):
                _rewrite(opened, old, root)
                logger.warning("%s was moved to %s: MLflow's paths were changed", old, root)
    except sqlite3.Error as error:
        logger.warning("%s: if it was moved, its paths are the old ones: %s", database, error)


def _moved_from(database: sqlite3.Connection, root: Path) -> set[Path]:
    """Return the folders of earlier places: gone, with artifacts that lie below `root` now."""
    found = set()
    for (uri,) in database.execute("SELECT artifact_location FROM experiments"):
        before, cut, name = unquote(urlsplit(uri or "").path).rpartition(ARTIFACTS)
        old = Path(before)
        if cut and not old.exists() and (root / "artifacts" / name).exists():
            found.add(old)
    return found


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> None:
    for table, column in LOCATIONS:
        _replace(database, table, column, f"{old.as_uri()}/", f"{new.as_uri()}/")
    _replace(database, "model_version_tags", "value", f"{old}/", f"{new}/", "AND key = 'weights'")


def _replace(
    database: sqlite3.Connection, table: str, column: str, old: str, new: str, further: str = ""
) -> None:
    """Replace the start of a column's values; all names here are this module's own."""
    database.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
        f"WHERE substr({column}, 1, ?) = ? {further}",
        (new, len(old) + 1, len(old), old),
    )
