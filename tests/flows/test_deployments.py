"""A real Prefect server and a process worker run what infra/prefect.yaml declares."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
import ray
import yaml

from flows.commands.doctor import doctor
from flows.settings import settings
from pipeline import cluster
from storage.batches.manifest import read_results
from storage.registry.model_registry import ModelRegistry
from storage.tracking.mlflow_client import open_client
from tests.pipeline.restoring.test_ray_data import photo_folder
from tests.support.embedded import embedded_workspace
from tests.support.processes import RAY, free_port, services_of
from tests.support.project import PROJECT
from tests.support.store_images import image_folder

pytestmark = pytest.mark.slow

PREFECT = str(Path(sys.executable).with_name("prefect"))
STEPS = 20


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what} did not happen in {seconds} seconds")


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """Environment variables of a platform with a Prefect server, a pool and a process worker."""
    home = tmp_path_factory.mktemp("platform")
    api = f"http://127.0.0.1:{free_port()}/api"
    environment = {
        **os.environ,
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(home / "workspace" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "QFACTORY_POOL": "qfactory",
        "QFACTORY_CODE": str(PROJECT),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        **embedded_workspace(home / "workspace"),
        "PYTHONPATH": str(PROJECT),
    }
    image_folder(home / "workspace" / "photos", 2)
    port = api.split(":")[2].split("/")[0]
    with service(home, environment, "server", "start", "--port", port):
        wait_until(lambda: answers(f"{api}/health"), 300, "the start of the Prefect server")
        deploy(environment)
        with service(home, environment, "worker", "start", "--pool", "qfactory"):
            yield environment


@pytest.fixture(scope="module")
def joined():
    """Job variables of runs that join this process's Ray: to start one of their own takes long."""
    cluster.connect(None, cpus=2)
    address = ray.get_runtime_context().gcs_address
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")  # Ray sets it where a user has a token
    return {"env": {"RAY_ADDRESS": address, "RAY_AUTH_MODE": mode}}


@pytest.fixture(scope="module", autouse=True)
def silent_run(platform):
    """The id of a run that gives no sign any more: Prefect takes three minutes to see that."""
    automation = yaml.safe_load((PROJECT / "infra" / "automations.yaml").read_text())
    names = [made["name"] for made in api(platform, "automations/filter", {})]
    assert names == [automation["name"]]
    flow = api(platform, "flows/name/study")["id"]
    run = api(platform, "flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING"}})["id"]
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    automation["trigger"] |= {"within": 10, "match": resource}  # seconds; Prefect takes no fewer
    api(platform, "automations/", automation)
    sign = {
        "id": str(uuid4()),
        "event": "prefect.flow-run.heartbeat",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": resource,
    }
    api(platform, "events", [sign])
    return run


def deploy(environment):
    """Bring pool, deployments, limits and automations of a Prefect server up to date."""
    path = f"{Path(PREFECT).parent}:{environment['PATH']}"
    done = subprocess.run(
        [PROJECT / "infra" / "deploy.sh", "process"], env={**environment, "PATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def service(home, environment, *arguments):
    """Run a Prefect service in a process group of its own; it ends with the block."""
    with (home / f"{arguments[0]}.log").open("w") as log:
        process = subprocess.Popen(
            [PREFECT, *arguments],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def prefect(environment, *arguments):
    """Run a prefect command and return what it printed."""
    done = subprocess.run(
        [PREFECT, *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def api(environment, path, body=None):
    """Ask the Prefect server; again after a 503, as its own clients do: SQLite is busy then."""
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    for seconds in (0.5, 1, 2, 4, 8):
        try:
            with urllib.request.urlopen(request) as reply:
                return json.loads(reply.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(seconds)
    return pytest.fail(f"the Prefect server stays busy: {path}")


def newest_run(environment, flow):
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    return api(environment, "flow_runs/filter", body)[0]


def start(environment, flow, variables=None, **parameters):
    """Ask for a run of a flow's deployment, as the UI does, and return its id."""
    deployment = api(environment, f"deployments/name/{flow}/default")["id"]
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "job_variables": variables}
    return api(environment, f"deployments/{deployment}/create_flow_run", body)["id"]


def end_of(environment, run_id):
    """Wait for a flow run to end, and return it."""
    ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    return wait_until(
        lambda: (run := api(environment, f"flow_runs/{run_id}"))["state_type"] in ends and run,
        500,
        f"the end of {run_id}",
    )


def made_of(environment, asset):
    """Return the assets that Prefect was told are made out of one, as soon as it knows of some."""
    body = {"filter": {"event": {"prefix": ["prefect.asset.materialization"]}}}

    def known():
        return [
            event["resource"]["prefect.resource.id"]
            for event in api(environment, "events/filter", body)["events"]
            if asset in [other["prefect.resource.id"] for other in event["related"]]
        ]

    return wait_until(known, 100, f"the making of something out of {asset}")


def small_set(environment):
    """An evaluation set that costs little."""
    return f"folder:{environment['QFACTORY_WORKSPACE']}/photos"


def mlflow_uri(environment):
    return f"sqlite:///{environment['QFACTORY_WORKSPACE']}/mlflow.db"


def test_every_deployment_is_there_with_its_queue_and_its_schedule_off(platform):
    declared = yaml.safe_load((PROJECT / "infra" / "prefect.yaml").read_text())["deployments"]
    found = api(platform, "deployments/filter", {})
    assert {d["entrypoint"] for d in found} == {d["entrypoint"] for d in declared}
    for deployment in found:
        assert deployment["description"]
        assert deployment["work_queue_name"] in ("data", "training")
        assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
        assert deployment["enforce_parameter_schema"]


def test_trainings_wait_in_a_queue_of_one_at_a_time(platform):
    queues = api(platform, "work_pools/qfactory/queues/filter", {})
    assert {q["name"]: q["concurrency_limit"] for q in queues}["training"] == 1


def test_the_doctor_names_the_server_and_its_version(platform, monkeypatch, capsys):
    for name in ("PREFECT_API_URL", "QFACTORY_WORKSPACE"):
        monkeypatch.setenv(name, platform[name])
    settings.cache_clear()
    with pytest.raises(SystemExit):
        doctor(json=True)
    settings.cache_clear()
    checks = json.loads(capsys.readouterr().out)["checks"]
    (check,) = [one for one in checks if one["name"] == "Prefect"]
    assert (check["state"], check["where"]) == ("ok", platform["PREFECT_API_URL"])
    assert check["facts"]["version"] == version("prefect")


def test_a_study_that_is_started_by_deployment_completes_and_registers_its_model(platform, joined):
    prefect(
        platform, "deployment", "run", "study/default",
        "--job-variable", f"env={json.dumps(joined['env'])}",
        "-p", "dataset=sample", "-p", f"steps={STEPS}", "-p", 'recipes=["quickres-qf1*"]',
        "-p", f"evaluate_on={json.dumps([small_set(platform)])}",
    )  # fmt: skip
    ended = end_of(platform, newest_run(platform, "study")["id"])
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    (version,) = ModelRegistry(mlflow_uri(platform)).versions("qfactory-quickres-qf10")
    assert version.tags["recipe"] == "quickres-qf10"
    assert version.aliases in (("champion",), ("challenger",))
    keys = {artifact["key"] for artifact in api(platform, "artifacts/filter", {})}
    assert {"patch-store", "scores", "study", "mlflow-run"} <= keys
    names = {run["name"].split("-")[0] for run in api(platform, "task_runs/filter", {})}
    assert any(name.startswith("train quickres") for name in names)
    (store,) = made_of(platform, "dataset://sample")
    assert store.startswith(f"file://{platform['QFACTORY_WORKSPACE']}/stores/sample-")
    assert {*made_of(platform, store)} == {"model://qfactory-quickres-qf10"}


def test_the_other_deployments_complete_with_a_link_to_mlflow(platform, joined):
    asked = {
        "build-patches": {"dataset": "sample", "side": 64, "stride": 32, "degradation": "image"},
        "train": {"recipe": "quickres-qf10", "dataset": "sample", "steps": STEPS + 1},
        "evaluate": {
            "network": "qfactory-quickres-qf10@challenger", "dataset": [small_set(platform)],
            "qf": [10],
        },
    }  # fmt: skip
    runs = [start(platform, flow, joined, **parameters) for flow, parameters in asked.items()]
    for run_id in runs:
        ended = end_of(platform, run_id)
        assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
        body = {"flow_runs": {"id": {"any_": [run_id]}}}
        assert "mlflow-run" in {a["key"] for a in api(platform, "artifacts/filter", body)}


def test_a_deployed_batch_restore_leaves_files_a_manifest_and_a_table(platform, joined, tmp_path):
    photos = photo_folder(tmp_path / "photos", 3)
    places = {"inputs": str(photos), "outputs": str(tmp_path / "restored")}
    run_id = start(platform, "restore-batch", joined, **places, model="quickres-qf10", actors=1)
    ended = end_of(platform, run_id)
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    rows = read_results(places["outputs"])
    assert [row.state for row in rows.values()] == ["done"] * 3
    assert all((tmp_path / "restored" / row.output).exists() for row in rows.values())
    body = {"flow_runs": {"id": {"any_": [run_id]}}}
    assert "restored-batch" in {a["key"] for a in api(platform, "artifacts/filter", body)}


@pytest.mark.parametrize(
    ("flow", "parameter", "told"),
    [
        ("study", {"recipes": ["nothing"]}, "quickres-qf10"),
        ("study", {"dataset": "bsd500"}, "bsds500:train"),
        ("train", {"stop_after": "banana"}, "does not match"),
    ],
)
def test_a_bad_parameter_is_refused_before_anything_runs(platform, flow, parameter, told):
    before = api(platform, "flow_runs/count", {})
    with pytest.raises(urllib.error.HTTPError, match="409") as refused:
        start(platform, flow, **parameter)
    assert told in refused.value.read().decode()
    assert api(platform, "flow_runs/count", {}) == before


def test_a_cancelled_study_stops_all_its_trainings_and_leaves_no_run_running(platform):
    run_id = start(
        platform, "study",
        recipes=["quickres-qf[12]0"], threads=1, steps=4_000, name="cancelled",
    )  # fmt: skip
    client = open_client(mlflow_uri(platform))

    def training_runs():
        found = client.get_experiment_by_name("cancelled")
        runs = client.search_runs([found.experiment_id]) if found else []
        return sum("loss" in run.data.metrics for run in runs) == 2

    wait_until(training_runs, 400, "the first loss of both trainings in MLflow")
    api(platform, f"flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    assert end_of(platform, run_id)["state_type"] == "CANCELLED"
    experiment = client.get_experiment_by_name("cancelled")
    assert experiment is not None
    wait_until(
        lambda: (
            {r.info.status for r in client.search_runs([experiment.experiment_id])} == {"KILLED"}
        ),
        200,
        "the end of the MLflow runs",
    )
    wait_until(
        lambda: not services_of(platform["QFACTORY_WORKSPACE"], RAY),
        200,
        "the end of the Ray processes",
    )


def test_a_run_that_gives_no_sign_any_more_counts_as_crashed(platform, silent_run):
    automation = yaml.safe_load((PROJECT / "infra" / "automations.yaml").read_text())
    ended = end_of(platform, silent_run)
    assert (ended["state_type"], ended["state"]["message"]) == (
        "CRASHED", automation["actions"][0]["message"],
    )  # fmt: skip
