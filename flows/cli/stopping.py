"""How a command stops: in order, in time, and at once when it is asked twice."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import NoReturn

PATIENCE_S = 10.0
"""Seconds that an orderly stop may take; a server that is gone would be waited for for minutes."""
GOODBYE_S = 0.5
"""Seconds that what was started has to take note of its end, see `_end_children`."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_came: list[int] = []
_last_words = [b"ended without waiting; the next command closes what this one left open\n"]


def handle_signals() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, the first time.

    The second time, or `PATIENCE_S` later, the process ends without waiting for anything: what it
    started is asked to end as well.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell sets it behind `&`
            signal.signal(number, _stop)


def wake_waiting_threads() -> None:
    """Let Ctrl-C interrupt what waits; call it after the imports.

    Polars, which MLflow imports, has system calls restarted: then nothing wakes a thread that waits
    for others.
    """
    signal.siginterrupt(signal.SIGINT, True)


def stopped_by() -> int | None:
    """Return the signal that the command was asked to stop by, if it was."""
    return _came[0] if _came else None


def have_told() -> None:
    """Say that the user knows: ending late is no news then."""
    _last_words.clear()


def _stop(number: int, _: FrameType | None) -> NoReturn:
    _came.append(number)
    for one in SIGNALS:
        signal.signal(one, _leave)
    leaving = Timer(PATIENCE_S, _leave, (number, None))
    leaving.daemon = True
    leaving.start()
    raise KeyboardInterrupt


def _leave(number: int, _: FrameType | None) -> NoReturn:
    for words in _last_words:
        os.write(2, words)
    _end_children()
    os._exit(128 + number)


def _end_children() -> None:
    """Ask what this process started to end, where `/proc` lists that.

    Ray's agents outlive a Ray that went without being asked by a minute, in which they try to tell
    it.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                os.kill(int(stat.parent.name), signal.SIGTERM)
    time.sleep(GOODBYE_S)
