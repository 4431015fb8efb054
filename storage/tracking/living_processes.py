"""Who works on something: names of processes, by which others see whether they still run."""

import os
import socket
from pathlib import Path


def owner() -> str:
    """Name this process, for the tag that tells whose a run is."""
    return f"{machine()}/{os.getpid()}"


def machine() -> str:
    """Return the name of the host and, on Linux, of its process namespace (containers)."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{namespace.stat().st_ino if namespace.exists() else ''}"


def is_of_this_machine(name: str) -> bool:
    """Tell whether a process that `owner` named runs, or ran, on this machine."""
    return name.rpartition("/")[0] == machine()


def is_gone(name: str) -> bool:
    """Tell whether a process that `owner` named ran on this machine and has ended."""
    if not is_of_this_machine(name):
        return False
    try:
        os.kill(int(name.rpartition("/")[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
