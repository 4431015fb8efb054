"""What nothing needs any more below the roots of stores and checkpoints, and its removal.

<checkpoints>/<training>/step-*    of use to go on from until the registry has the final weights
<checkpoints>/ray/<attempt>        Ray Train's own files
<stores>/<store>/shards            those that no version names, of builds that were cut off
.tmp-*                             what a process did not live to publish

What was written less than an age ago stays, and so does what a living holder has the lease of.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event

from storage import files
from storage.checkpoints import PREFIX, remove_checkpoints
from storage.files import TEMPORARY, StoredFile, StoreError
from storage.leases import held, is_held
from storage.patches import upkeep
from storage.patches.versions import version_numbers

RAY = "ray"
LEASE = ".lease"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What may go of one place, for one reason."""

    place: str
    why: str
    files: int
    bytes: int
    remove: Callable[[], None]
    """Removes it, unless somebody has begun to work there."""


def checkpoint_garbage(
    root: str, registered: Mapping[str, str], *, older_than_s: float
) -> Iterator[Garbage]:
    """Yield what may go below the root of checkpoints.

    `registered` is URI -> SHA-256 of the weights of all registered versions. The weights themselves
    stay: studies reuse them.
    """
    for name in files.list_names(root):
        if name != RAY and not name.endswith(LEASE):
            yield from _of_training(files.join(root, name), registered, older_than_s)
    for name in files.list_names(files.join(root, RAY)):
        folder = files.join(root, RAY, name)
        there = files.list_files(folder)
        if _are_old(there, older_than_s):
            why = "Ray Train's own files of an attempt that is over"
            lease = files.join(root, name.rpartition("-")[0]) + LEASE
            yield from _garbage(folder, why, there, lease, partial(files.delete, folder))


def _of_training(
    folder: str, registered: Mapping[str, str], older_than_s: float
) -> Iterator[Garbage]:
    there, lease = files.list_files(folder), folder + LEASE
    steps = [file for file in there if file.uri.startswith(files.join(folder, PREFIX))]
    if steps and _are_old(there, older_than_s) and _has_registered_weights(there, registered):
        why = "checkpoints of a training that is finished and registered"
        yield from _garbage(folder, why, steps, lease, partial(remove_checkpoints, folder))
        return
    lost = [file for file in there if _is_temporary(file) and _are_old([file], older_than_s)]
    yield from _garbage(folder, "files of a killed training", lost, lease, partial(_delete, lost))


def store_garbage(root: str, *, older_than_s: float) -> Iterator[Garbage]:
    """Yield what may go of each store below a root; one that is damaged is left to the doctor."""
    for name in files.list_names(root):
        uri, lease = files.join(root, name), files.join(root, name, "lease")
        shards = files.join(uri, "shards")
        if not version_numbers(uri):
            there = files.list_files(shards)
            if _are_old(there, older_than_s):
                why = "shards of a build that was never finished"
                yield from _garbage(uri, why, there, lease, partial(files.delete, shards))
            continue
        try:
            left = upkeep.orphans(uri, grace_s=older_than_s)
        except StoreError as error:
            logger.warning("%s", error)
            continue
        why = "shards that no version names, of builds that were cut off"
        yield from _garbage(uri, why, left, lease, partial(_delete, left))


def _garbage(
    place: str,
    why: str,
    there: Collection[StoredFile],
    lease: str,
    remove: Callable[[], object],
) -> Iterator[Garbage]:
    if there and not is_held(lease):
        yield Garbage(
            place=place,
            why=why,
            files=len(there),
            bytes=sum(file.bytes for file in there),
            remove=partial(_alone, lease, remove),
        )


def _alone(lease: str, remove: Callable[[], object]) -> None:
    """Call `remove` while holding a lease; do nothing if another has it."""
    at_once = Event()
    at_once.set()
    with suppress(CancelledError), held(lease, stop=at_once):
        remove()


def _delete(there: Collection[StoredFile]) -> None:
    for file in there:
        files.delete(file.uri)


def _are_old(there: Collection[StoredFile], older_than_s: float) -> bool:
    """Tell whether there are files, and all of them are older."""
    return bool(there) and max(file.modified for file in there) < time.time() - older_than_s


def _is_temporary(file: StoredFile) -> bool:
    return file.uri.rpartition("/")[2].startswith(TEMPORARY)


def _has_registered_weights(there: Collection[StoredFile], registered: Mapping[str, str]) -> bool:
    known = [file.uri for file in there if file.uri in registered]
    return any(files.sha256_of(uri) == registered[uri] for uri in known)
