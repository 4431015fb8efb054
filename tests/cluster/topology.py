"""A platform on several hosts: servers, a Ray head, three nodes with a core, and a desk.

Who works sits at the desk, a Ray node without cores; deployed flows run there too.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import hosts, servers
from tests.cluster.hosts import Host
from tests.cluster.servers import BIN, Platform
from tests.support.project import PROJECT

ADDRESSES = {
    "head": "10.77.0.2",
    "desk": "10.77.0.3",
    **{"one": "10.77.0.11", "two": "10.77.0.12", "three": "10.77.0.13"},
}
CORES = {"desk": 0, "one": 1, "two": 1, "three": 1}
"""Of the Ray nodes beside the head, which has none."""
RAY_PORT = 6379
PATIENCE_S = 900.0


class Command:
    """A running command, whose output is read as it comes."""

    def __init__(self, host: Host, command: Sequence[str], environment: Mapping[str, str]):
        self.output = host.folder / f"command-{time.monotonic_ns()}.log"
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                host.command(command), cwd=host.folder, env=environment,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def told(self) -> str:
        """All that it has said."""
        return self.output.read_text()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait_for(self, text: str, seconds: float = PATIENCE_S) -> None:
        """Wait until it has said this text."""
        end = time.monotonic() + seconds
        while text not in self.told:
            assert self.runs, f"it ended without {text!r}:\n{self.told}"
            assert time.monotonic() < end, f"no {text!r} in {seconds:.0f} s:\n{self.told}"
            time.sleep(0.2)

    def still_runs(self, seconds: float) -> bool:
        """Tell whether it has not ended after so many more seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.runs

    def code(self, seconds: float = PATIENCE_S) -> int:
        """Wait for its end; return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end in {seconds:.0f} s:\n{self.told}") from None

    def end(self) -> str:
        """Return all that it said, if it ended well."""
        assert self.code() == 0, self.told
        return self.told

    def kill(self) -> None:
        """End it at once, with all that it started on its host."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Topology:
    """The hosts and servers of a platform, and the environment of who works on it."""

    services: Platform
    hosts: Mapping[str, Host]
    environment: Mapping[str, str]
    worker: Command = field(init=False)
    """Prefect's, once it was started."""

    def start_head(self) -> None:
        """Start Ray's head, again whenever it ends."""
        self._keep_ray(
            "head",
            f"--head --port {RAY_PORT} --num-cpus 0 --include-dashboard false",
            {**self.environment, "RAY_ADDRESS": ""},
        )

    def start_node(self, name: str) -> None:
        """Let a host join the Ray cluster with its cores, again whenever Ray ends there."""
        joining = f"--address {ADDRESSES['head']}:{RAY_PORT} --num-cpus {CORES[name]}"
        self._keep_ray(name, joining, self.environment)

    def _keep_ray(self, name: str, arguments: str, environment: Mapping[str, str]) -> None:
        host = self.hosts[name]
        ray = (
            f"{BIN}/ray start {arguments} --block --node-ip-address {host.address} "
            f"--object-store-memory 100000000 --temp-dir /tmp/qf-ray-{name}"
        )
        host.start(["sh", "-c", f"while true; do {ray}; sleep 1; done"], environment)

    def begin(self, *arguments: str, **variables: str) -> Command:
        """Start a `qfactory` command at the desk."""
        return self.run([str(BIN / "qfactory"), *arguments], **variables)

    def run(self, command: Sequence[str], **variables: str) -> Command:
        """Start any command at the desk."""
        return Command(self.hosts["desk"], command, {**self.environment, **variables})

    def deploy(self) -> None:
        """Bring the deployments up to date, with a pool of processes."""
        self.run([str(PROJECT / "infra" / "deploy.sh"), "process"]).end()

    def start_worker(self) -> None:
        """Start Prefect's worker, which runs deployed flows at the desk."""
        self.worker = self.run([str(BIN / "prefect"), "worker", "start", "--pool", "qfactory"])

    def wait_for_nodes(self, seconds: float = 180) -> None:
        """Wait until all nodes are alive, as the desk sees them."""
        script = (
            "import ray; ray.init(address='auto', logging_level='ERROR', log_to_driver=False); "
            "print(int(ray.cluster_resources().get('CPU', 0)))"
        )
        desk, end = self.hosts["desk"], time.monotonic() + seconds
        while True:
            told = desk.run([str(BIN / "python"), "-c", script], self.environment)
            if told.returncode == 0 and int(told.stdout.split()[-1]) == sum(CORES.values()):
                return
            assert time.monotonic() < end, f"not all nodes came: {told}"
            time.sleep(1)


def why_not() -> str | None:
    """Return why this machine cannot have such a platform; None if it can."""
    return hosts.why_not() or servers.why_not()


@contextmanager
def running(folder: Path, **variables: str) -> Iterator[Topology]:
    """Run the platform, with more variables in its environment; it is gone after the block."""
    token = folder / "ray-token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    with hosts.network(ADDRESSES, folder) as network, servers.running(folder) as platform:
        environment = {
            **platform.environment,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": f"{ADDRESSES['head']}:{RAY_PORT}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder / "client"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "QFACTORY_WORKSPACE": str(folder / "workspace"),
            "QFACTORY_POOL": "qfactory",
            "QFACTORY_CODE": str(PROJECT),
            **variables,
        }
        made = Topology(platform, network, environment)
        made.start_head()
        time.sleep(5)
        for name in CORES:
            made.start_node(name)
        made.wait_for_nodes()
        yield made
