"""The servers of a platform, on the machine's own address: PostgreSQL, S3, Prefect, MLflow."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.cluster.hosts import SERVERS
from tests.support.project import PROJECT

BIN = Path(sys.executable).parent
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PORTS = {"postgres": 5439, "s3": 5555, "prefect": 4200, "mlflow": 5000}
BUCKETS = ("qf-stores", "qf-checkpoints", "qf-artifacts")


@dataclass
class Server:
    """A server process that can be taken away for a while."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    health: str
    process: subprocess.Popen = field(init=False)

    def start(self, patience_s: float = 120) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + patience_s
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.health, timeout=2):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"{self.health} does not answer:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """Kill it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def freeze(self, seconds: float) -> None:
        """Let it take connections and answer nothing for a while."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(self.process.pid, signal.SIGCONT)


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server that trusts this machine."""

    control: Callable[..., None]
    """Runs `pg_ctl` with these arguments."""
    options: str

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.control("-o", self.options, "start")

    def stop(self) -> None:
        """End it without a goodbye to its clients."""
        self.control("-m", "immediate", "stop")


@dataclass(frozen=True)
class Platform:
    """What the servers are called, and what clients need to use them."""

    servers: Mapping[str, Server]
    database: Database
    s3_mood: Path
    """How S3 answers; see `s3_server`."""
    environment: Mapping[str, str]
    """Of a client with all credentials."""


@contextmanager
def running(folder: Path) -> Iterator[Platform]:
    """Run the servers, with passwords of their own; all are killed after the block."""
    password, token = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
    base = {
        **{name: value for name, value in os.environ.items() if not name.startswith("QFACTORY_")},
        "AWS_ACCESS_KEY_ID": "qfactory",
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(18),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{SERVERS}:{PORTS['s3']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    client = {
        **base,
        "PREFECT_API_URL": f"http://{SERVERS}:{PORTS['prefect']}/api",
        "PREFECT_API_AUTH_STRING": f"admin:{token}",
        "MLFLOW_TRACKING_URI": f"http://{SERVERS}:{PORTS['mlflow']}",
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": password,
        "QFACTORY_STORES": "s3://qf-stores",
        "QFACTORY_CHECKPOINTS": "s3://qf-checkpoints",
    }
    with ExitStack() as stack:
        postgres = stack.enter_context(_postgres())
        database = f"postgres@{SERVERS}:{PORTS['postgres']}"
        mood = folder / "s3-mood"
        mood.write_text("")
        s3 = Server(
            [sys.executable, "-m", "tests.cluster.s3_server", SERVERS, str(PORTS["s3"]), str(mood)],
            {**base, "PYTHONPATH": str(PROJECT)}, folder / "s3.log", f"http://{SERVERS}:{PORTS['s3']}/moto-api/",
        )  # fmt: skip
        prefect = Server(
            [str(BIN / "prefect"), "server", "start", "--host", SERVERS, "--port",
             str(PORTS["prefect"]), "--no-ui"],
            {
                **base,
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
                "PREFECT_SERVER_API_AUTH_STRING": f"admin:{token}",
            },
            folder / "prefect.log", f"http://{SERVERS}:{PORTS['prefect']}/api/health",
        )  # fmt: skip
        auth = folder / "auth.ini"
        auth.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = postgresql://{database}/mlflow_auth\n"
            f"admin_username = admin\nadmin_password = {password}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        mlflow = Server(
            [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", SERVERS,
             "--port", str(PORTS["mlflow"]), "--app-name", "basic-auth", "--allowed-hosts", "*",
             "--backend-store-uri", f"postgresql://{database}/mlflow",
             "--artifacts-destination", "s3://qf-artifacts"],
            {
                **base,
                "MLFLOW_AUTH_CONFIG_PATH": str(auth),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(18),
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            folder / "mlflow.log", f"http://{SERVERS}:{PORTS['mlflow']}/health",
        )  # fmt: skip
        servers = {"s3": s3, "prefect": prefect, "mlflow": mlflow}
        for name, server in servers.items():
            server.start()
            stack.callback(server.stop)
            if name == "s3":
                _make_buckets()
        yield Platform(servers, postgres, mood, client)


def why_not() -> str | None:
    """Return why the servers cannot run here; None if they can."""
    return None if POSTGRES else "PostgreSQL's server is not installed (Debian: postgresql)"


@contextmanager
def _postgres() -> Iterator[Database]:
    """Run PostgreSQL, whose superuser `postgres` needs no password on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="qf-postgres-"))
    shutil.chown(folder, "postgres")
    bin_ = POSTGRES[-1]

    def as_postgres(*command: str) -> None:
        subprocess.run(
            ["runuser", "-u", "postgres", "--", *command],
            check=True, cwd=folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    data = str(folder / "data")
    as_postgres(f"{bin_}/initdb", "--auth", "trust", "--no-sync", "-D", data)
    options = f"-h {SERVERS} -p {PORTS['postgres']} -k {folder} -c fsync=off"
    with Path(data, "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {SERVERS}/32 trust\n")
    control = partial(as_postgres, f"{bin_}/pg_ctl", "-D", data, "-l", str(folder / "log"), "-w")
    database = Database(control, options)
    database.start()
    try:
        for name in ("prefect", "mlflow", "mlflow_auth"):
            where = ("-h", SERVERS, "-p", str(PORTS["postgres"]))
            as_postgres(f"{bin_}/createdb", *where, name)
        yield database
    finally:
        database.stop()
        shutil.rmtree(folder)


def _make_buckets() -> None:
    for bucket in BUCKETS:
        url = f"http://{SERVERS}:{PORTS['s3']}/{bucket}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"))
