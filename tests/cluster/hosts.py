"""Several hosts on one machine: namespaces on a bridge, each with a name and processes of its own.

As on Debian, a host's own name resolves to 127.0.1.1 on it. A host sees no other's processes: Ray
takes the first of its nodes that it finds among them for the node of who asks.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BRIDGE = "qfbridge"
SERVERS = "10.77.0.1"
"""Address of the machine itself on the bridge, where servers listen."""


@dataclass
class Host:
    """A host with an address and a name; what is started on it ends with it."""

    name: str
    address: str
    folder: Path
    power: subprocess.Popen = field(init=False)
    """Has the host's first process as its child, and namespaces that commands enter."""

    @property
    def namespace(self) -> str:
        """The network namespace's name."""
        return f"qf-{self.name}"

    def switch_on(self) -> None:
        """Start the host, with nothing running on it."""
        first = f"hostname {self.name}; echo up; sleep infinity; :"  # `:` so that the shell stays
        self.power = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--pid", "--fork",
             "--kill-child", "--mount-proc", "sh", "-c", first],
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self.power.stdout is not None
        assert self.power.stdout.readline() == b"up\n", f"{self.namespace} does not start"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs another one on this host."""
        pid = self.power.pid
        entered = ["--net", "--uts", "--mount", f"--pid=/proc/{pid}/ns/pid_for_children"]
        return ["nsenter", f"--target={pid}", *entered, *arguments]

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], seconds: float = 300):
        """Run a command on this host to its end."""
        return subprocess.run(
            self.command(arguments), cwd=self.folder, env=environment, capture_output=True,
            text=True, timeout=seconds,
        )  # fmt: skip

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a command on this host; its output goes to a log file in the host's folder."""
        name = "-".join(Path(word).name for word in arguments[:2])
        with (self.folder / f"{name}.log").open("ab") as log:
            subprocess.Popen(
                self.command(arguments), cwd=self.folder, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def pids(self) -> list[int]:
        """Return the processes that run on this host, by the machine's numbers."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]

    def kill(self) -> None:
        """End everything that runs on this host at once, as a power failure does."""
        self.switch_off()
        self.switch_on()

    def switch_off(self) -> None:
        """End this host and everything that runs on it."""
        self.power.kill()
        self.power.wait()
        while self.pids():
            time.sleep(0.05)

    def cut(self) -> None:
        """Take the host off the network; what runs on it goes on."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")

    def join(self) -> None:
        """Put the host on the network, again."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")


@contextmanager
def network(addresses: Mapping[str, str], folder: Path) -> Iterator[dict[str, Host]]:
    """Make hosts of these names and addresses, 10.77.0.x; all is gone after the block."""
    hosts = {name: Host(name, address, folder / name) for name, address in addresses.items()}
    _remove(hosts.values())
    try:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{SERVERS}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for host in hosts.values():
            _make(host)
        yield hosts
    finally:
        for host in hosts.values():
            if hasattr(host, "power"):
                host.switch_off()
        _remove(hosts.values())


def why_not() -> str | None:
    """Return why this machine cannot have such hosts; None if it can."""
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    made = subprocess.run(["ip", "netns", "add", "qf-probe"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", "qf-probe"], capture_output=True)
    return made.stderr.strip() or None


def _make(host: Host) -> None:
    host.folder.mkdir()
    outside = f"qf-{host.name}"
    names = Path("/etc/netns", host.namespace)
    names.mkdir(parents=True, exist_ok=True)
    (names / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n")
    _ip("netns", "add", host.namespace)
    _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    _ip("link", "set", outside, "master", BRIDGE, "up")
    _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
    _ip("-n", host.namespace, "link", "set", "lo", "up")
    host.join()
    _ip("-n", host.namespace, "route", "add", "default", "via", SERVERS)  # Ray looks for its own
    host.switch_on()


def _remove(hosts) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "delete", host.namespace], capture_output=True)
        shutil.rmtree(Path("/etc/netns", host.namespace), ignore_errors=True)
        subprocess.run(["ip", "link", "delete", f"qf-{host.name}"], capture_output=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
