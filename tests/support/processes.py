"""Which ports a test may take, and which processes it left behind."""

import os
import random
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

RAY = ("raylet", "gcs_server", "ray::")
PREFECT = "prefect_server"
TRAINING = ("ray::RayTrainWorker", "ray::train ")
PORTS = range(20_000, 32_000)
"""Between Ray's workers' ports and those that the kernel hands out to whoever asks for any."""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without what would lead commands to other servers."""
    foreign = ("QFACTORY_", "PREFECT_", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, **variables}


def free_port() -> int:
    """Return a loopback port that nobody listens on, nor is given by chance a moment later."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"100 ports of {PORTS} are all taken")


def services_of(folder: str | Path, names: Sequence[str] = (*RAY, PREFECT)) -> list[str]:
    """Return the command lines of running services whose environment names a folder."""
    commands = [command for _, command in processes_of(folder)]
    return [command for command in commands if any(name in command for name in names)]


def processes_of(folder: str | Path) -> Iterator[tuple[int, str]]:
    """Yield id and command line of the processes whose environment names a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            owned = str(folder).encode() in (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if owned:
            yield int(process.name), command


def kill_a_training_worker() -> int:
    """Kill one of this process's training workers and return its process id."""
    worker = own_training_workers()[-1]
    os.kill(worker, signal.SIGKILL)
    return worker


def own_training_workers() -> list[int]:
    """Return the process ids of the training workers among the descendants of this process."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                names[int(folder.name)] = (folder / "cmdline").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_ours(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == os.getpid():
                return True
        return False

    return [pid for pid, name in names.items() if name.startswith(TRAINING) and is_ours(pid)]
