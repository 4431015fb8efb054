"""Keep what is to be recorded in order, and write it in the background until it has arrived."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from storage.shown import shown_uri

ATTEMPTS = 3
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 10.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing to write. Writing it twice must do no harm: an answer can be lost on the way."""

    describe: Callable[[], str]
    """Names it for a person, in case it cannot be written."""
    write: Callable[[], object]
    """Writes it; raises any exception when that failed."""
    content: Callable[[], object] = lambda: None
    """Returns what would be written, as JSON values, for whoever keeps it elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Unwritten:
    """Something that was dropped or still waits."""

    what: str
    """Its name, and the reason when it was dropped."""
    content: object


class Journal:
    """An ordered queue of entries with one background thread that writes them.

    An entry that fails waits at the head and is tried again, at growing distances, as long as
    `reachable` says False: nothing overtakes it. While `reachable` says True it has three
    attempts; then it is dropped and named, so that one bad entry does not hold up the rest.
    """

    def __init__(self, *, reachable: Callable[[], bool], gather_s: float) -> None:
        """Start the thread; after idling it waits `gather_s` seconds for entries to add up."""
        self._reachable = reachable
        self._gather_s = gather_s
        self._entries: deque[Entry] = deque()
        self._dropped: list[Unwritten] = []
        self._changed = threading.Condition()
        self._flushing = 0
        self._failing = False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    @property
    def failing(self) -> bool:
        """Tell whether the last attempt failed and is to be repeated."""
        return self._failing

    @property
    def unwritten(self) -> list[Unwritten]:
        """What was dropped with its reason, then what still waits."""
        with self._changed:
            waiting = (Unwritten(what=e.describe(), content=e.content()) for e in self._entries)
            return [*self._dropped, *waiting]

    def add(self, entry: Entry) -> None:
        """Queue an entry; returns at once."""
        with self._changed:
            if self._closed:
                what = f"{entry.describe()}: came after the end"
                self._dropped.append(Unwritten(what=what, content=entry.content()))
                return
            self._entries.append(entry)
            self._changed.notify_all()

    def flush(self, patience_s: float, *, unless_failing: bool = False) -> bool:
        """Wait until everything is written, at most `patience_s` seconds; tell whether it is.

        With `unless_failing` it also returns as soon as an attempt has failed.
        """
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: not self._entries or (unless_failing and self._failing), patience_s
                )
                return not self._entries
            finally:
                self._flushing -= 1

    def close(self, patience_s: float) -> list[Unwritten]:
        """Flush, stop the thread, and return what could not be written."""
        self.flush(patience_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)
        return self.unwritten

    def _work(self) -> None:
        attempts = 0
        wait_s = FIRST_WAIT_S
        while (entry := self._next()) is not None:
            error = _error_of(entry)
            if error is None:
                self._take_off(None)
                attempts, wait_s = 0, FIRST_WAIT_S
                continue
            self._note_failure(entry, error)
            if self._reachable():
                attempts, wait_s = attempts + 1, FIRST_WAIT_S
            if attempts >= ATTEMPTS:
                self._take_off(f"{entry.describe()}: {shown_uri(str(error))}")
                attempts = 0
                continue
            self._pause(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _next(self) -> Entry | None:
        with self._changed:
            if not self._entries:
                self._changed.wait_for(lambda: self._entries or self._closed)
                self._changed.wait_for(lambda: self._flushing or self._closed, self._gather_s)
            return None if self._closed else self._entries[0]

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; a flush cuts long waits into short ones."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closed and (rest := until - time.monotonic()) > 0:
                if self._flushing and rest > FIRST_WAIT_S:
                    rest = FIRST_WAIT_S
                    until = time.monotonic() + rest
                self._changed.wait(rest)

    def _note_failure(self, entry: Entry, error: Exception) -> None:
        if not self._failing:
            what = f"{entry.describe()} ({shown_uri(str(error))})"
            _logger.warning("Not recorded yet, will be repeated: %s", what)
        with self._changed:
            self._failing = True
            self._changed.notify_all()

    def _take_off(self, reason: str | None) -> None:
        with self._changed:
            entry = self._entries.popleft()
            self._failing = False
            if reason is not None:
                _logger.warning("Not recorded: %s", reason)
                self._dropped.append(Unwritten(what=reason, content=entry.content()))
            self._changed.notify_all()


def _error_of(entry: Entry) -> Exception | None:
    try:
        entry.write()
    except Exception as error:
        return error
    return None
