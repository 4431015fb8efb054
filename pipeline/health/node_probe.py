"""What a machine says of itself: its packages, code and clock, free disk, places it can write to.

Sent to Ray's nodes by value, since some may lack this package: a function here imports what Python
does not bring where it needs it, and gives and takes only what Python brings.
"""

import ast
import hashlib
import platform
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

R = TypeVar("R")

PACKAGES = ("torch", "ray", "pillow", "numpy", "pyarrow")
OUR_CODE = ("models", "pipeline", "storage")
ROOT_S = 10.0
"""Seconds that a place has for a small file."""
CONTENT = b"qfactory doctor writes this, reads it back and deletes it"


def probe(roots: Mapping[str, str], mark: str | None) -> dict[str, Any]:
    """Return the host's name, versions, free disk, and what is wrong with each root, if anything.

    `roots` is name -> folder or URI; there a small file is written, read back and deleted. `mark`
    is the name of a file that lies in each, unless this machine's folder is not the asker's.
    `began` and `ended` are this machine's clock, seconds since 1970.
    """
    began = time.time()
    trials = {name: in_background(partial(try_root, root, mark)) for name, root in roots.items()}
    return {
        "host": socket.gethostname(),
        "began": began,
        "versions": _versions(),
        "disks": _disks([tempfile.gettempdir(), *(r for r in roots.values() if "://" not in r)]),
        "roots": {name: _outcome(trial) for name, trial in trials.items()},
        "ended": time.time(),
    }


def in_background(function: Callable[[], R]) -> "Future[R]":
    """Call a function in a thread that holds up nobody who has stopped waiting for it."""
    future: Future[R] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=call, daemon=True).start()
    return future


def try_root(root: str, mark: str | None = None) -> str:
    """Write a small file below a folder or URI, read it back and delete it.

    Returns what went wrong, an empty text if nothing did.
    """
    from storage import files  # a node may lack it

    own = files.join(root, f"{files.TEMPORARY}doctor-{uuid.uuid4().hex}")
    try:
        if mark is not None and not files.exists(files.join(root, mark)):
            return "is another folder there than here"
        files.write_bytes(own, CONTENT)
        if files.read_bytes(own) != CONTENT:
            return "gives back other bytes than were written"
    except Exception as error:  # the clients of object stores have errors of their own
        return f"cannot be written and read back: {error or type(error).__name__}"
    finally:
        with suppress(Exception):
            files.delete(own)
    return ""


def _outcome(trial: "Future[str]") -> str:
    try:
        return trial.result(ROOT_S)
    except TimeoutError:
        return f"does not answer within {ROOT_S:.0f} s"
    except ImportError as error:
        return f"was not tried: {error}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name).partition("+")[0]
    with suppress(ImportError):
        from PIL import features  # a node may lack it

        turbo = features.version_feature("libjpeg_turbo")
        found["jpeg"] = f"libjpeg-turbo {turbo}" if turbo else str(features.version_codec("jpg"))
    with suppress(ImportError, OSError):
        found["code"] = _code()
    return found


def _code() -> str:
    """Digest our packages: what they say, not comments and layout. Raises ImportError."""
    digest = hashlib.sha256()
    for package in OUR_CODE:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise ImportError(f"no package {package}")
        for path in sorted(Path(spec.origin).parent.rglob("*.py")):
            digest.update(ast.dump(ast.parse(path.read_bytes())).encode())
    return digest.hexdigest()[:12]


def _disks(folders: list[str]) -> dict[str, tuple[int, int]]:
    """Return folder -> free and all bytes, one folder a disk."""
    found: dict[int, tuple[str, tuple[int, int]]] = {}
    for folder in folders:
        there = Path(folder)
        while not there.exists():
            there = there.parent
        usage = shutil.disk_usage(there)
        found.setdefault(there.stat().st_dev, (str(there), (usage.free, usage.total)))
    return dict(found.values())
