"""`qfactory doctor`: what is embedded, what is away, what killed commands left behind."""

import json
import os
import subprocess
import sys
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.commands.doctor import doctor
from flows.console import out
from flows.settings import settings
from pipeline.health import node_probe
from storage.leases import held, holder_of
from storage.tracking.abandoned_runs import OWNER_TAG
from storage.tracking.living_processes import machine
from storage.tracking.mlflow_client import open_client
from tests.support.mlflow_servers import new_database
from tests.support.processes import free_port
from tests.support.store_images import build, image_folder

our_code = cache(node_probe._code)
"""Its digest takes a third of a second, and is the same in all that is asked here."""
SERVERS = ("PREFECT_API_URL", "RAY_ADDRESS", "MLFLOW_TRACKING_URI")


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Run the command in a workspace of its own; return its exit code and checks by name."""

    def run(*, mend=False, **variables):
        for name in SERVERS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("QFACTORY_WORKSPACE", str(tmp_path / "workspace"))
        monkeypatch.setattr(node_probe, "_code", our_code)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        with pytest.raises(SystemExit) as stop:
            doctor(mend=mend, json=True)
        told = json.loads(capsys.readouterr().out)
        assert told["fit"] == (stop.value.code == 0)
        return stop.value.code, {check["name"]: check for check in told["checks"]}

    yield run
    settings.cache_clear()


@pytest.fixture
def http_server():
    """Return a function that serves one status and text to every question, and its address."""
    servers = []

    def serve(status, text):
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET  # noqa: N815 - the library's name

            def log_message(self, format, *arguments):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def problem_of(check):
    (problem,) = check["problems"]
    return problem


def test_a_new_workspace_is_fit_and_nothing_is_started(ask, tmp_path):
    code, checks = ask()
    assert code == 0
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert [checks[name]["where"] for name in ("Prefect", "MLflow", "Ray")] == ["embedded"] * 3
    assert {"this machine", "stores", "checkpoints", "artifacts", "builds"} < set(checks)
    assert not (tmp_path / "workspace" / "mlflow.db").exists()


def test_the_screen_has_a_line_a_check(ask, capsys, monkeypatch):
    ask()
    monkeypatch.setattr(out, "width", 300)
    with pytest.raises(SystemExit):
        doctor()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("ok ")] == [
        "Prefect", "MLflow", "Ray", "this", "stores", "checkpoints", "artifacts", "builds",
        "leases",
    ]  # fmt: skip
    assert lines[-1].startswith("errors 0, warnings 0")


@pytest.mark.slow
def test_servers_that_are_away_are_named_in_time_without_their_passwords(ask, capsys):
    start = time.monotonic()
    away = f"127.0.0.1:{free_port()}"
    code, checks = ask(
        PREFECT_API_URL=f"http://me:secret@{away}/api",
        MLFLOW_TRACKING_URI=f"http://me:secret@{away}",
        RAY_ADDRESS=away,
    )
    assert time.monotonic() - start < 60
    assert code == 1
    for name, command in {
        "Prefect": "prefect server start --host 127.0.0.1 --port",
        "MLflow": "mlflow server --host 127.0.0.1 --port",
        "Ray": "ray start --head --port",
    }.items():
        problem = problem_of(checks[name])
        assert "onnection refused" in problem["what"]
        assert problem["mend"].startswith(command)
        assert checks[name]["where"].startswith(("http://127.0.0.1", "127.0.0.1"))
    assert "secret" not in json.dumps(checks)


@pytest.mark.parametrize(
    ("status", "text", "told", "mend"),
    [
        (200, "2.22.0", "is MLflow 2.22.0, here it is 3.", "pip install mlflow==3."),
        (401, "no", "refuses this process's credentials", "export MLFLOW_TRACKING_TOKEN"),
        (404, "no", "is no MLflow server", "mlflow server --host"),
    ],
)
def test_a_tracking_server_of_no_use_is_explained(ask, http_server, status, text, told, mend):
    code, checks = ask(MLFLOW_TRACKING_URI=http_server(status, text))
    problem = problem_of(checks["MLflow"])
    assert code == 1
    assert told in problem["what"]
    assert problem["mend"].startswith(mend)


def test_a_prefect_server_that_wants_a_token_is_explained(ask, http_server):
    code, checks = ask(PREFECT_API_URL=f"{http_server(401, 'no')}/api")
    assert code == 1
    assert problem_of(checks["Prefect"])["mend"].startswith("export PREFECT_API_AUTH_STRING")


def test_a_run_whose_process_is_gone_is_a_warning_that_mend_ends(ask, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    client = open_client(new_database(tmp_path / "workspace"))
    run = client.create_run("0", tags={OWNER_TAG: f"{machine()}/{gone.pid}"})
    code, checks = ask()
    assert code == 0
    assert checks["MLflow"]["state"] == "warning"
    assert run.info.run_id in problem_of(checks["MLflow"])["what"]
    assert problem_of(checks["MLflow"])["mend"] == "qfactory doctor --mend"
    _, checks = ask(mend=True)
    assert (checks["MLflow"]["state"], checks["MLflow"]["facts"]["runs ended"]) == ("ok", 1)
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_what_killed_builds_left_is_named_with_what_removes_it(ask, tmp_path):
    stores = tmp_path / "workspace" / "stores"
    build(image_folder(tmp_path / "photos", 2), stores / "whole")
    left = stores / "whole" / "shards" / ".tmp-left"
    left.write_bytes(b"half a shard")
    os.utime(left, (0, 0))
    begun = stores / "begun" / "shards"
    begun.mkdir(parents=True)
    (begun / "first.parquet").write_bytes(b"a shard of no version")
    code, checks = ask()
    problems = checks["builds"]["problems"]
    assert code == 0
    assert "begun: its build is unfinished" in problems[0]["what"]
    assert "whole: 1 files of killed builds" in problems[1]["what"]
    assert problems[1]["mend"] == f"qfactory patches gc {stores}/whole --keep 1"


def test_a_lease_whose_holder_is_gone_is_a_warning_that_mend_ends(ask, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    checkpoints = tmp_path / "workspace" / "checkpoints"
    stores = tmp_path / "workspace" / "stores"
    stores.mkdir(parents=True)
    (stores / "notes.txt").write_text("no store")
    lease = checkpoints / "quickres-qf10-0123.lease" / "000000003.json"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps({"owner": f"{machine()}/{gone.pid}", "since": "2026-01-01"}))
    with held(str(checkpoints / "living.lease")):
        code, checks = ask()
        assert (code, checks["leases"]["state"]) == (0, "warning")
        assert f"process {gone.pid} on" in problem_of(checks["leases"])["what"]
        _, checks = ask(mend=True)
    assert checks["leases"]["facts"] == {"leases ended": 1}
    assert holder_of(str(lease.parent)) is None


def test_a_place_that_cannot_be_written_is_an_error(ask, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, checks = ask(QFACTORY_CHECKPOINTS=str(tmp_path / "file" / "checkpoints"))
    assert code == 1
    assert checks["stores"]["state"] == "ok"
    assert "Not a directory" in problem_of(checks["checkpoints"])["what"]
    assert problem_of(checks["checkpoints"])["mend"].startswith("export QFACTORY_CHECKPOINTS=")
