"""What the command line shows of log records on stderr: sentences, or an object of JSON a line."""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

from pipeline.logs import fields_now
from storage.shown import shown_uri

FIELDS = {
    "flow_run_name": "flow_run",
    "task_run_name": "task_run",
    "recipe": "recipe",
    "shard": "shard",
}
"""Attribute of a record -> its name in JSON; absent where a record has none."""


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """Show warnings; in JSON also what runs say of their work. No passwords of addresses.

    What Prefect logs of errors, which arrive here anyway, is left out.
    """
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING if form == "text" else logging.INFO)
    handler.addFilter(lambda record: not _is_told_by_prefect(record))
    handler.setFormatter(_Sentences("%(levelname)s %(message)s") if form == "text" else _Json())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _Sentences(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown_uri(super().format(record))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        known = {**fields_now(), **vars(record)}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **{name: known[field] for field, name in FIELDS.items() if known.get(field)},
            **({"error": self.formatException(record.exc_info)} if record.exc_info else {}),
        }
        return json.dumps({name: shown_uri(text) for name, text in line.items()})


def _is_told_by_prefect(record: logging.LogRecord) -> bool:
    if "/prefect/" not in record.pathname:
        return False
    ends = record.getMessage().startswith(("Finished in state", "Crash detected"))
    return ends or bool(record.exc_info) or "/_internal/" in record.pathname
