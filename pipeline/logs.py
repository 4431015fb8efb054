"""Log records beyond their process: a worker's warnings and errors, told where it was asked for.

There they are handled like any other, whole, with traceback and with what `about` says of them.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import QueueHandler
from queue import SimpleQueue

OURS = ("flows", "pipeline", "storage", "models")
"""Loggers whose records are sent."""

_fields: ContextVar[Mapping[str, str]] = ContextVar("fields")


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Say of all records of the block what they are about, such as `recipe` or `shard`."""
    token = _fields.set({**fields_now(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def fields_now() -> Mapping[str, str]:
    """Return what records are about here and now."""
    return _fields.get({})


@contextmanager
def warnings_sent_to(send: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    """Give `send` a copy of every warning and error of the block, which travels anywhere."""
    handler = _Sender(send)
    for name in OURS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in OURS:
            logging.getLogger(name).removeHandler(handler)


def tell(records: Iterable[logging.LogRecord]) -> None:
    """Handle records that another process sent, as if they were made here."""
    for record in records:
        logging.getLogger(record.name).handle(record)


class _Sender(QueueHandler):
    """A handler that calls a function with records made to travel."""

    def __init__(self, send: Callable[[logging.LogRecord], object]) -> None:
        super().__init__(SimpleQueue())
        self.setLevel(logging.WARNING)
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record on which the standard library has done the rest."""
        vars(record).update(fields_now())
        self._send(record)
