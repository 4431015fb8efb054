"""Commands that are stopped by Ctrl-C in a terminal, or killed: soon, whole, and nothing stays."""

import os
import re
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from flows.cli.stopping import PATIENCE_S
from flows.planning.restoring_networks import fetch, networks_for
from pipeline.restoring.batch_plan import list_photos
from pipeline.restoring.batch_run import Batch, prepare
from storage.batches.manifest import read_results
from storage.checkpoints import checkpoint_steps
from tests.pipeline.restoring.test_ray_data import photo_folder
from tests.support.commands import QFACTORY
from tests.support.embedded import embedded_workspace
from tests.support.processes import clean_environment, services_of
from tests.support.terminals import CTRL_C, Terminal

pytestmark = pytest.mark.slow

TOLD = "error: interrupted: what was published stays; the same command goes on from there"
EXIT_S = 8  # what the end of a process may take where every core is busy
RAYS_AGENTS_S = 200  # for 60 of them they try to tell a Ray that was killed of its end
BUILD = ("patches", "build", "--side", "48", "--stride", "4")
EVALUATE = ("evaluate", "jpeg", "--dataset", "sample", "--qf", "10", "--record")
RESTORE = ("restore-batch", "photos", "out", "--model", "quickres-qf10")
STUDY = ("study", "--recipes", "quickres-qf10", "--steps", "4000", "--threads", "1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a workspace and photographs."""
    folder = tmp_path_factory.mktemp("stopping")
    embedded_workspace(folder / "workspace")
    photo_folder(folder / "photos", 100, size=(200, 300))
    return folder


def start(folder, *command):
    variables = {"QFACTORY_WORKSPACE": str(folder / "workspace"), "QFACTORY_REPORT_SECONDS": "0"}
    return Terminal([QFACTORY, *command], folder, clean_environment(**variables))


def interrupt(terminal, number=signal.SIGINT):
    """Press Ctrl-C, or send another signal; return exit code and lines since that are no bars."""
    time.sleep(0.1)  # in the middle of a write, the line would be shown again
    before = len(terminal.text)
    if number == signal.SIGINT:
        terminal.press(CTRL_C)
    else:
        os.kill(terminal.pid, number)
    code, seconds = terminal.end()
    assert seconds < PATIENCE_S + EXIT_S
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text[before:].replace("^C", ""))
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown)]
    return code, [line for line in lines if line and "%" not in line]


def left_over(folder, seconds=100):
    """Return the services that are left after so many seconds."""
    end = time.monotonic() + seconds
    while services_of(folder) and time.monotonic() < end:
        time.sleep(0.2)
    return services_of(folder)


def states(folder):
    """The states of the workspace's MLflow runs, Prefect flow runs and Prefect task runs."""
    asked = [
        ("mlflow.db", "select status from runs"),
        ("prefect/prefect.db", "select state_type from flow_run"),
        ("prefect/prefect.db", "select state_type from task_run"),
    ]
    found = []
    for file, query in asked:
        with closing(sqlite3.connect(folder / "workspace" / file)) as database:
            found.append([state for (state,) in database.execute(query)])
    return found


def steps_of(folder):
    """The steps that the only training of the workspace has checkpoints of."""
    found = (folder / "workspace" / "checkpoints").glob("quickres-qf10-*")
    trainings = [place for place in found if place.suffix != ".lease"]
    return checkpoint_steps(str(trainings[0])) if trainings else []


@pytest.mark.alone
@pytest.mark.parametrize(
    ("command", "shown"),
    [(BUILD, "patches of sample"), (STUDY, "checking network quickres")],
    ids=lambda value: value[0],
)
def test_ctrl_c_in_a_terminal_ends_a_command_in_time_with_one_line(workspace, command, shown):
    terminal = start(workspace, *command)
    terminal.wait_for(shown)
    assert interrupt(terminal) == (130, [TOLD])
    assert left_over(workspace) == []


@pytest.mark.alone
def test_what_a_batch_did_before_sigterm_is_not_done_again(workspace):
    inputs, outputs = str(workspace / "photos"), str(workspace / "out")
    terminal = start(workspace, *RESTORE)
    terminal.wait_for("/100")
    code, lines = interrupt(terminal, signal.SIGTERM)
    assert (code, lines[-1]) == (143, TOLD)  # before it, Ray may tell that its actors were ended
    assert left_over(workspace) == []
    finished = read_results(outputs)
    assert 0 < len(finished) < 100
    later = Batch(inputs=inputs, outputs=outputs, networks=networks_for(outputs), fetch=fetch)
    todo = {photo.name for photo in prepare(later).plan.todo}
    assert todo == {photo.name for photo in list_photos(inputs)} - {*finished}


@pytest.mark.alone
def test_a_training_that_is_stopped_goes_on_from_that_step_and_ends_at_once_when_asked_twice(
    workspace,
):
    terminal = start(workspace, *STUDY)
    terminal.wait_for("patches/s")
    code, lines = interrupt(terminal)
    assert (code, lines) == (130, [TOLD])
    (step,) = steps_of(workspace)  # far from the first minute's end
    assert step > 10
    mlflow, *prefect = states(workspace)
    assert set(mlflow) == {"KILLED"}
    assert not any("RUNNING" in found for found in prefect)
    terminal = start(workspace, *STUDY)
    terminal.wait_for(f"goes on from step {step:,}")
    terminal.press(CTRL_C)
    time.sleep(0.5)
    terminal.press(CTRL_C)
    code, seconds = terminal.end()
    assert code == 130
    assert seconds < EXIT_S
    assert left_over(workspace) == []


def test_what_a_killed_command_started_ends_and_the_next_command_closes_its_runs(workspace):
    terminal = start(workspace, *STUDY)
    terminal.wait_for("train quickres")
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    assert left_over(workspace, RAYS_AGENTS_S) == []
    assert all("RUNNING" in found for found in states(workspace))
    assert start(workspace, *EVALUATE).end()[0] == 0
    assert left_over(workspace) == []
    mlflow, flow_runs, task_runs = states(workspace)
    assert "RUNNING" not in mlflow + flow_runs + task_runs
    assert "CRASHED" in flow_runs
    assert "KILLED" in mlflow


@pytest.mark.alone
def test_a_prefect_server_that_does_not_start_is_told_in_one_line_at_the_end(workspace):
    nowhere = "sqlite+aiosqlite:////nowhere/prefect.db"
    environment = clean_environment(
        QFACTORY_WORKSPACE=str(workspace / "workspace"), PREFECT_API_DATABASE_CONNECTION_URL=nowhere
    )
    terminal = Terminal([QFACTORY, "patches", "build"], workspace, environment)
    assert terminal.end()[0] == 2
    assert "did not start (ended with exit code 3)" in terminal.text.splitlines()[-1]
    assert left_over(workspace) == []
