"""What a platform team does, on several hosts with servers and passwords of their own."""

import json
import time

import pytest

from tests.cluster.hosts import SERVERS
from tests.cluster.servers import BIN, PORTS

pytestmark = pytest.mark.cluster

STUDY = ("study", "--recipes", "quickres-qf10", "--threads", "1")


def tracked(topology, script):
    """Run a script that finds an MLflow client as `client`, and return what it printed as JSON."""
    begin = "import json, mlflow\nclient = mlflow.MlflowClient()\n"
    python = [str(BIN / "python"), "-c", begin + script]
    done = topology.nodes["one"].run(python, topology.environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def running(topology):
    """The names of MLflow's runs that are said to run."""
    return tracked(
        topology,
        "ids = [e.experiment_id for e in client.search_experiments()]\n"
        "runs = client.search_runs(ids, \"attributes.status = 'RUNNING'\")\n"
        "print(json.dumps([run.info.run_name for run in runs]))",
    )


def steps_of_runs(topology, experiment):
    """What every finished training of an experiment recorded of its steps."""
    return tracked(
        topology,
        f"id = client.get_experiment_by_name({experiment!r}).experiment_id\n"
        "runs = client.search_runs([id], \"attributes.run_name = 'quickres-qf10'\")\n"
        "print(json.dumps([[m.step for m in client.get_metric_history(r.info.run_id, 'loss')]"
        " for r in runs if r.info.status == 'FINISHED']))",
    )


def ascending(steps, last):
    return steps == sorted(set(steps)) and steps[-1] == last


def test_a_study_of_two_workers_on_two_nodes_is_registered_and_loads_with_a_password(topology):
    told = topology.begin(*STUDY, "--steps", "200", "--workers", "2").end()
    assert "registered models:/qfactory-quickres-qf10/1 is @champion" in told
    script = (
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/qfactory-quickres-qf10@champion')\n"
        "print(model.predict(np.zeros((1, 1, 16, 16), np.float32)).shape)\n"
    )
    python = [str(BIN / "python"), "-c", script]
    allowed = topology.nodes["two"].run(python, topology.environment)
    assert "(1, 1, 16, 16)" in allowed.stdout, allowed.stderr
    stranger = {k: v for k, v in topology.environment.items() if "MLFLOW_TRACKING_P" not in k}
    refused = topology.nodes["two"].run(python, stranger)
    assert refused.returncode != 0
    assert "401" in refused.stderr or "not authenticated" in refused.stderr


def test_a_stranger_on_the_network_is_refused_by_ray_prefect_and_mlflow(topology):
    host = topology.nodes["three"]
    names = ("RAY_AUTH_TOKEN_PATH", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD")
    stranger = {k: v for k, v in topology.environment.items() if k not in names}
    stranger["HOME"] = str(host.folder)
    ray = "import ray; ray.init(address='10.77.0.2:6379')"
    joined = host.run([str(BIN / "python"), "-c", ray], stranger, 120)
    assert joined.returncode != 0
    assert "token" in joined.stderr.lower()
    prefect = f"http://{SERVERS}:{PORTS['prefect']}/api/flows/count"
    mlflow = f"http://{SERVERS}:{PORTS['mlflow']}/api/2.0/mlflow/experiments/search"
    for url in (prefect, mlflow):
        status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", url]
        assert host.run(status, stranger).stdout == "401", url


def test_a_training_finishes_though_nodes_that_it_is_on_die_and_come_back(topology):
    command = topology.begin(*STUDY, "--steps", "401", "--workers", "2", "--name", "dying")
    command.wait_for("loss")
    for name in ("one", "two"):  # of three: one of its two workers at least
        topology.nodes[name].kill()
        topology.start_node(name)
    assert "goes on from step" in command.end()
    (steps,) = steps_of_runs(topology, "dying")
    assert ascending(steps, 401)


def test_a_training_finishes_though_its_nodes_are_cut_off_for_a_while(topology):
    command = topology.begin(*STUDY, "--steps", "402", "--workers", "2", "--name", "cut")
    command.wait_for("loss")
    for name in ("one", "two"):
        topology.nodes[name].cut()
    time.sleep(40)
    for name in ("one", "two"):
        topology.nodes[name].join()
    command.end()
    (steps,) = steps_of_runs(topology, "cut")
    assert ascending(steps, 402)


def test_a_training_finishes_though_the_prefect_server_is_away_for_a_while(topology):
    command = topology.begin(*STUDY, "--steps", "403", "--name", "away")
    command.wait_for("loss")
    server = topology.platform.servers["prefect"]
    server.stop()
    time.sleep(20)
    server.start()
    command.end()
    (steps,) = steps_of_runs(topology, "away")
    assert ascending(steps, 403)


def test_a_command_that_is_killed_leaves_nothing_running_and_is_finished_by_the_next(topology):
    command = topology.begin(*STUDY, "--steps", "404", "--name", "killed")
    command.wait_for("loss")
    command.kill()
    assert "quickres-qf10" in running(topology)
    topology.begin(*STUDY, "--steps", "404", "--name", "killed").end()
    assert running(topology) == []
    (steps,) = steps_of_runs(topology, "killed")
    assert ascending(steps, 404)


def test_a_build_is_whole_though_a_node_dies_in_it(topology):
    build = ("patches", "build", "--side", "48", "--stride", "4", "--store", "of-lost-nodes")
    command = topology.begin(*build)
    command.wait_for("shards")
    topology.nodes["two"].kill()
    topology.start_node("two")
    command.end()
    assert "all 8 shards are whole" in topology.begin("patches", "verify", "of-lost-nodes").end()
