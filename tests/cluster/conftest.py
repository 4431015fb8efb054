"""The whole topology, once: servers, a Ray head without cores, three nodes, a Prefect worker."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.cluster import hosts, servers
from tests.cluster.hosts import Host
from tests.cluster.servers import BIN, Platform
from tests.support.project import PROJECT

ADDRESSES = {"head": "10.77.0.2", "one": "10.77.0.11", "two": "10.77.0.12", "three": "10.77.0.13"}
RAY_PORT = 6379


class Command:
    """A running `qfactory` command, whose output is read as it comes."""

    def __init__(self, host: Host, arguments: tuple[str, ...], environment: Mapping[str, str]):
        self.process = subprocess.Popen(
            host.command([str(BIN / "qfactory"), *arguments]), cwd=host.folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []

    def wait_for(self, text: str) -> None:
        """Read on until a line has this text."""
        for line in self.process.stdout or ():
            self.lines.append(line)
            if text in line:
                return
        pytest.fail(f"the command ended without {text!r}:\n{''.join(self.lines)}")

    def end(self) -> str:
        """Return all that it said, if it ended well."""
        self.lines.extend(self.process.stdout or ())
        told = "".join(self.lines)
        assert self.process.wait() == 0, told
        return told

    def kill(self) -> None:
        """End it at once, with all that it started on its host."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Topology:
    """The hosts and servers of a platform, and the environment of who works on it."""

    platform: Platform
    head: Host
    nodes: Mapping[str, Host]
    environment: Mapping[str, str]

    def start_node(self, name: str) -> None:
        """Let a host join the Ray cluster with one core, again whenever Ray ends there."""
        host = self.nodes[name]
        ray = (
            f"{BIN}/ray start --address {self.head.address}:{RAY_PORT} --num-cpus 1 --block "
            f"--node-ip-address {host.address} --object-store-memory 100000000 "
            f"--temp-dir /tmp/qf-ray-{name}"
        )
        host.start(["sh", "-c", f"while true; do {ray}; sleep 1; done"], self.environment)

    def begin(self, *arguments: str) -> "Command":
        """Start a command on the head's host."""
        return Command(self.head, arguments, self.environment)

    def wait_for_nodes(self, count: int, seconds: float = 90) -> None:
        """Wait until so many nodes with cores are alive."""
        script = (
            "import ray; ray.init(address='auto', logging_level='ERROR', log_to_driver=False); "
            "print(int(ray.cluster_resources().get('CPU', 0)))"
        )
        end, told = time.monotonic() + seconds, None
        while time.monotonic() < end:
            told = self.head.run([str(BIN / "python"), "-c", script], self.environment)
            if told.returncode == 0 and int(told.stdout.split()[-1]) >= count:
                return
            time.sleep(1)
        pytest.fail(f"{count} nodes did not come: {told}")


@pytest.fixture(scope="session")
def topology(tmp_path_factory) -> Iterator[Topology]:
    if reason := hosts.why_not() or servers.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    token = folder / "ray-token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    with hosts.network(ADDRESSES, folder) as network, servers.running(folder) as platform:
        environment = {
            **platform.environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": f"{ADDRESSES['head']}:{RAY_PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder / "client"),
            "QFACTORY_WORKSPACE": str(folder / "workspace"),
        }
        head, nodes = network["head"], {n: network[n] for n in network if n != "head"}
        made = Topology(platform, head, nodes, environment)
        head.start(
            [str(BIN / "ray"), "start", "--head", "--node-ip-address", head.address, "--port",
             str(RAY_PORT), "--num-cpus", "0", "--block", "--include-dashboard", "false",
             "--object-store-memory", "100000000", "--temp-dir", "/tmp/qf-ray-head"],
            {**environment, "RAY_ADDRESS": ""},
        )  # fmt: skip
        time.sleep(5)
        for name in nodes:
            made.start_node(name)
        made.wait_for_nodes(len(nodes))
        yield made
