"""infra/Dockerfile and the scripts of the image."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.settings import git_commit, settings
from tests.support.infra_files import INFRA
from tests.support.processes import processes_of
from tests.support.project import PROJECT

DOCKERFILE = (INFRA / "Dockerfile").read_text()
SCRIPTS = sorted(INFRA.glob("*.sh"))
ASLEEP = "{ sleep 90 > /dev/null & }"
TOOLS = Path(sys.executable).parent


def test_hadolint_and_shellcheck_find_nothing():
    for command in (
        [TOOLS / "hadolint", INFRA / "Dockerfile"],
        [TOOLS / "shellcheck", *SCRIPTS],
    ):
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


def test_scripts_can_be_run():
    assert SCRIPTS
    assert [script for script in SCRIPTS if not os.access(script, os.X_OK)] == []


def test_the_image_has_the_packages_and_what_they_are_installed_by_and_no_secret():
    lines = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    taken = {line[1:] for line in lines if line.startswith("!")}
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests"}
    assert taken == {"pyproject.toml", "README.md", "LICENSE", "infra"} | packages
    assert all((PROJECT / name).exists() for name in taken)
    assert "infra/secrets" in lines[lines.index("!infra") :]


def test_the_image_runs_as_nobody_and_asks_for_the_health_of_what_it_serves():
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    code = json.loads(DOCKERFILE.rpartition("\n  CMD ")[2])
    for urls, healthy in (("", True), ("http://127.0.0.1:9/health", False)):
        environment = {**os.environ, "HEALTH_URL": urls}
        done = subprocess.run([sys.executable, *code[1:]], env=environment, capture_output=True)
        assert (done.returncode == 0) == healthy


def test_a_run_in_the_image_has_the_commit_that_the_image_was_built_from(monkeypatch):
    assert "QFACTORY_COMMIT=$COMMIT " in DOCKERFILE
    for told, commit in (("0123abc", "0123abc"), ("", git_commit())):
        monkeypatch.setenv("QFACTORY_COMMIT", told)
        settings.cache_clear()
        assert git_commit.__wrapped__() == commit
    settings.cache_clear()


def test_secrets_that_come_as_files_become_variables_of_the_command(tmp_path):
    (tmp_path / "password").write_text("not told\n")
    done = subprocess.run(
        [INFRA / "with-secrets.sh", "printenv", "PGPASSWORD"],
        env={"PATH": os.environ["PATH"], "PGPASSWORD_FILE": str(tmp_path / "password")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "not told\n"


def once_there(path):
    """A shell command that waits for a file."""
    return f"until [ -e {path} ]; do sleep 0.05; done"


@pytest.fixture
def beside(tmp_path):
    """Start a command beside a node that is a shell script instead of Ray.

    Its signals are as in a container; a shell cannot trap what its parents ignore.
    """
    node = tmp_path / "ray"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_ADDRESS": "head:6379"}

    def start(ray, command):
        node.write_text(f"#!/bin/sh\n{ray}\n")
        node.chmod(0o755)
        return subprocess.Popen(
            ["env", "--default-signal", INFRA / "beside-ray.sh", "bash", "-c", command],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    yield start
    for pid, _ in processes_of(tmp_path):  # of a test that failed
        os.kill(pid, signal.SIGKILL)


def test_a_command_beside_ray_ends_with_its_own_code_and_ends_the_node(beside, tmp_path):
    up, ended = tmp_path / "up", tmp_path / "ended"
    node = f"trap 'touch {ended}; exit' TERM; touch {up}; {ASLEEP}; wait"
    process = beside(node, f"{once_there(up)}; exit 3")
    assert process.wait(60) == 3
    assert ended.exists()


def test_a_command_beside_ray_is_stopped_when_its_node_is_lost(beside, tmp_path):
    up = tmp_path / "up"
    command = f"trap 'echo stopped; exit 4' TERM; touch {up}; {ASLEEP}; wait"
    process = beside(once_there(up), command)
    assert process.wait(60) == 4
    assert process.stdout.read() == "stopped\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_command_beside_ray_is_told_once_to_stop_and_may_interrupt_itself(beside, name):
    command = "trap 'echo interrupted; exit 5' INT; trap 'kill -INT $$' TERM; echo on;"
    process = beside("exec sleep 90", f"{command} {ASLEEP}; while true; do wait; done")
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.Signals[name])
    assert process.wait(60) == 5
    assert process.stdout.read() == "interrupted\n"
