"""Where the time of this process goes: a sum for each kind of work, without the work inside it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, local

BEGAN = time.monotonic()
_lock = Lock()
_spent: dict[str, float] = {}


class _Thread(local):
    """The open pieces of work of a thread: of each, the seconds that others inside it took."""

    def __init__(self) -> None:
        self.inside: list[float] = []


_thread = _Thread()


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Count the time of a block, or of a function that this decorates, as `what`."""
    _thread.inside.append(0.0)
    began = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - began
        _add(what, took - _thread.inside.pop())
        if _thread.inside:
            _thread.inside[-1] += took


def spend(what: str, seconds: float) -> None:
    """Count seconds of the block that is open, which another process worked for it, as `what`."""
    _add(what, seconds)
    if _thread.inside:
        _thread.inside[-1] += seconds


def spent() -> Mapping[str, float]:
    """Return the seconds of each kind of work so far, in the order in which they began to count.

    `other` is what remains of the time since this module was imported. Work of several threads adds
    up, and may be more than that time.
    """
    with _lock:
        found = dict(_spent)
    rest = time.monotonic() - BEGAN - sum(found.values())
    return {**found, "other": max(0.0, rest)}


def _add(what: str, seconds: float) -> None:
    with _lock:
        _spent[what] = _spent.get(what, 0.0) + seconds
