"""Leases: of all that could work on one thing, on whatever machine, one at a time does.

<lease>/000000007.json    who holds it, written again every few seconds; empty when they have left

The highest number counts, and stays, so that who acts on what was true a while ago sees a higher.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from threading import Event, Thread

from storage import files
from storage.tracking.living_processes import is_gone, owner

RENEWED_S = 10.0
EXPIRES_S = 60.0
"""Seconds without a sign of its holder after which a lease is anyone's."""
POLL_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lease."""

    owner: str
    """See `storage.tracking.living_processes`."""
    since: str
    """Date and time, UTC."""
    signs: int = 0
    """How often it was written again."""

    def __str__(self) -> str:
        host, _, pid = self.owner.rpartition("/")
        return f"process {pid} on {host.partition('/')[0]}, since {self.since} UTC"


@contextmanager
def held(
    uri: str, *, on_wait: Callable[[Holder], None] = lambda holder: None, stop: Event | None = None
) -> Iterator[None]:
    """Hold the lease of this URI, a folder of its own, for the length of the block.

    Waits for another holder to leave, to end on this machine, or to give no sign for EXPIRES_S;
    `on_wait` is told who it is. Raises CancelledError when `stop` is set meanwhile.
    """
    mine, holder = _take(uri, on_wait, stop or Event())
    left = Event()
    renewing = Thread(target=_renew, args=(mine, holder, left), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        left.set()
        renewing.join()
        _write(mine, b"")


def holder_of(uri: str) -> Holder | None:
    """Return who holds a lease, living or not; None if nobody does."""
    return _newest(uri)[1]


def stale_holder(uri: str) -> Holder | None:
    """Return who holds a lease but has ended, or gave no sign for EXPIRES_S; None if nobody."""
    number, holder = _newest(uri)
    if holder is None or is_gone(holder.owner):
        return holder
    try:
        silent_s = time.time() - files.modified_at(_file(uri, number))
    except FileNotFoundError:  # another took the next at this moment
        return None
    return holder if silent_s > EXPIRES_S else None


def is_held(uri: str) -> bool:
    """Tell whether a living holder has a lease."""
    return holder_of(uri) is not None and stale_holder(uri) is None


def leave(uri: str) -> None:
    """Leave a lease in its holder's place."""
    files.write_bytes(_file(uri, _newest(uri)[0]), b"")


def _take(uri: str, on_wait: Callable[[Holder], None], stop: Event) -> tuple[str, Holder]:
    seen, told, changed = None, None, time.monotonic()
    while True:
        number, holder = _newest(uri)
        if holder != seen:
            seen, changed = holder, time.monotonic()
        if holder is None or is_gone(holder.owner) or time.monotonic() - changed > EXPIRES_S:
            ours = Holder(owner=owner(), since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"))
            if _claim(uri, number + 1, ours):
                return _file(uri, number + 1), ours
            continue
        if holder.owner != told:
            told = holder.owner
            on_wait(holder)
        if stop.wait(POLL_S):
            raise CancelledError(f"{uri}: stopped while held by {holder}")


def _claim(uri: str, number: int, holder: Holder) -> bool:
    """Take a number that was free; tell whether it counts, and remove those below it if so."""
    if not files.create_bytes(_file(uri, number), _content(holder)):
        return False
    *lower, highest = _numbers(uri)
    if highest > number:
        files.delete(_file(uri, number))
        return False
    for old in lower:
        files.delete(_file(uri, old))
    return True


def _renew(mine: str, holder: Holder, left: Event) -> None:
    while not left.wait(RENEWED_S):
        holder = replace(holder, signs=holder.signs + 1)
        _write(mine, _content(holder))


def _write(mine: str, content: bytes) -> None:
    """Write a lease again; where that cannot be, work goes on, and it expires."""
    try:
        files.write_bytes(mine, content)
    except (OSError, files.StoreError) as error:
        logger.warning("%s cannot be written: %s", mine, error)


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _file(uri: str, number: int) -> str:
    return files.join(uri, f"{number:09}.json")


def _newest(uri: str) -> tuple[int, Holder | None]:
    """Return the highest number, 0 if there is none, and who has it."""
    number = max(_numbers(uri), default=0)
    try:
        content = files.read_bytes(_file(uri, number))
    except FileNotFoundError:  # none is there, or another took the next at this moment
        return number, None
    return number, Holder(**json.loads(content)) if content else None


def _numbers(uri: str) -> list[int]:
    names = [name.removesuffix(".json") for name in files.list_names(uri)]
    return sorted(int(name) for name in names if name.isdigit())
