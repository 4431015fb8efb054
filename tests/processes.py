"""Which processes a test left behind."""

from pathlib import Path


def ray_processes(folder: str | Path) -> list[str]:
    """Return the command lines of Ray processes whose environment names a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            owned = str(folder).encode() in (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if owned and any(name in command for name in ("raylet", "gcs_server", "ray::")):
            found.append(command)
    return found
