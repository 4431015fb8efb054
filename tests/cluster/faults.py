"""What goes wrong on a platform, as it can be brought about here."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from tests.cluster.hosts import Host
from tests.cluster.topology import Command, Topology

NODES = ("one", "two", "three")
AWAY_S, CUT_S = 30, 40
"""Seconds that a server is away, and a node."""

OF_NODES = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Titles of Ray's processes that do no work."""

Fault = Callable[[Topology, Command, random.Random], None]


def node_killed(platform: Topology, command: Command, rng: random.Random) -> None:
    """All of a node is gone at once; it comes back as a new one."""
    name = rng.choice(NODES)
    platform.hosts[name].kill()
    platform.start_node(name)


def node_cut_off(platform: Topology, command: Command, rng: random.Random) -> None:
    """A node is off the network for 40 seconds and goes on running."""
    host = platform.hosts[rng.choice(NODES)]
    host.cut()
    time.sleep(CUT_S)
    host.join()


def head_killed(platform: Topology, command: Command, rng: random.Random) -> None:
    """Ray's head is gone, with all that it knew; a new one starts."""
    platform.hosts["head"].kill()
    platform.start_head()


def process_killed(platform: Topology, command: Command, rng: random.Random) -> None:
    """A process that does the work on a node is gone: a training worker or a task's."""
    while command.runs:
        found = [
            pid
            for name in NODES
            for pid, title in processes_of(platform.hosts[name]).items()
            if title.startswith("ray::") and not title.startswith(OF_NODES)
        ]
        if found:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
            return
        time.sleep(0.5)


def command_killed(platform: Topology, command: Command, rng: random.Random) -> None:
    """The process of the flow is gone, with all that it started on its host."""
    command.kill()


def worker_killed(platform: Topology, command: Command, rng: random.Random) -> None:
    """Prefect's worker is gone, with the flow that it runs; another one starts."""
    platform.worker.kill()
    platform.start_worker()


def prefect_away(platform: Topology, command: Command, rng: random.Random) -> None:
    """Prefect's server is killed, and started again after a while."""
    _away(platform, "prefect")


def mlflow_away(platform: Topology, command: Command, rng: random.Random) -> None:
    """MLflow's server is killed, and started again after a while."""
    _away(platform, "mlflow")


def postgres_away(platform: Topology, command: Command, rng: random.Random) -> None:
    """The database of both servers ends without a goodbye, and comes back after a while."""
    platform.services.database.stop()
    time.sleep(AWAY_S)
    platform.services.database.start()


def s3_frozen(platform: Topology, command: Command, rng: random.Random) -> None:
    """The object store takes connections and answers nothing for a while."""
    platform.services.servers["s3"].freeze(AWAY_S)


def s3_busy(platform: Topology, command: Command, rng: random.Random) -> None:
    """The object store refuses one request in ten with a 503, from now on."""
    platform.services.s3_mood.write_text("busy")


def s3_slow(platform: Topology, command: Command, rng: random.Random) -> None:
    """The object store takes 200 ms longer for each request, from now on."""
    platform.services.s3_mood.write_text("slow")


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.__name__: fault
        for fault in (
            node_killed, node_cut_off, head_killed, process_killed, command_killed, worker_killed,
            prefect_away, mlflow_away, postgres_away, s3_frozen, s3_busy, s3_slow,
        )
    }
)  # fmt: skip


def processes_of(host: Host) -> dict[int, str]:
    """Return the processes of a host: id -> command line."""
    found = {}
    for pid in host.pids():
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return found


def _away(platform: Topology, name: str) -> None:
    server = platform.services.servers[name]
    server.stop()
    time.sleep(AWAY_S)
    server.start()
