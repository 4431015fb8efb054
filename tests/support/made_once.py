"""What takes seconds to make and is always the same: made by one process, read by all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(name: str, make: Callable[[Path], bytes]) -> bytes:
    """Return what `make` gives, in a scratch folder, or what another process kept under `name`.

    The name tells the version of what made it.
    """
    folder = Path(tempfile.gettempdir(), f"qfactory-tests-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    kept = folder / name
    with FileLock(folder / f"{name}.lock"):
        if not kept.exists():
            with tempfile.TemporaryDirectory() as scratch:
                content = make(Path(scratch))
            (folder / f"{name}.part").write_bytes(content)
            (folder / f"{name}.part").rename(kept)
    return kept.read_bytes()
