"""What a platform team does, on several hosts with servers and passwords of their own."""

import json
import time

import pytest

from tests.cluster.hosts import SERVERS
from tests.cluster.servers import BIN, PORTS
from tests.pipeline.restoring.test_ray_data import photo_folder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

STUDY = ("study", "--recipes", "quickres-qf10", "--threads", "1")


def tracked(topology, script):
    """Run a script that finds an MLflow client as `client`, and return what it printed as JSON."""
    begin = "import json, mlflow\nclient = mlflow.MlflowClient()\n"
    python = [str(BIN / "python"), "-c", begin + script]
    done = topology.hosts["one"].run(python, topology.environment)
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
    allowed = topology.hosts["two"].run(python, topology.environment)
    assert "(1, 1, 16, 16)" in allowed.stdout, allowed.stderr
    stranger = {k: v for k, v in topology.environment.items() if "MLFLOW_TRACKING_P" not in k}
    refused = topology.hosts["two"].run(python, stranger)
    assert refused.returncode != 0
    assert "401" in refused.stderr or "not authenticated" in refused.stderr


def test_a_stranger_on_the_network_is_refused_by_ray_prefect_and_mlflow(topology):
    host = topology.hosts["three"]
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
        topology.hosts[name].kill()
        topology.start_node(name)
    assert "goes on from step" in command.end()
    (steps,) = steps_of_runs(topology, "dying")
    assert ascending(steps, 401)


def test_a_training_finishes_though_its_nodes_are_cut_off_for_a_while(topology):
    command = topology.begin(*STUDY, "--steps", "402", "--workers", "2", "--name", "cut")
    command.wait_for("loss")
    for name in ("one", "two"):
        topology.hosts[name].cut()
    time.sleep(40)
    for name in ("one", "two"):
        topology.hosts[name].join()
    command.end()
    (steps,) = steps_of_runs(topology, "cut")
    assert ascending(steps, 402)


def test_a_training_begins_and_finishes_though_the_prefect_server_is_away_for_a_while(topology):
    command = topology.begin(*STUDY, "--steps", "403", "--name", "away", "--store", "of-away")
    command.wait_for("store built")
    server = topology.services.servers["prefect"]
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
    topology.hosts["two"].kill()
    topology.start_node("two")
    command.end()
    assert "all 8 shards are whole" in topology.begin("patches", "verify", "of-lost-nodes").end()


def test_two_commands_that_build_one_store_and_train_one_recipe_leave_one_of_each(topology):
    twice = [
        topology.begin(*STUDY, "--steps", "240", "--store", "of-two", "--name", "twice")
        for _ in range(2)
    ]
    told = [command.end() for command in twice]
    assert sum("waits for process" in one for one in told) >= 1
    assert "shards are whole" in topology.begin("patches", "verify", "of-two").end()
    assert running(topology) == []
    trained = [steps for steps in steps_of_runs(topology, "twice") if steps]
    assert [ascending(steps, 240) for steps in trained] == [True] * len(trained)
    weights = tracked(
        topology,
        "found = client.search_model_versions(\"name = 'qfactory-quickres-qf10'\")\n"
        "print(json.dumps([version.tags['weights_sha256'] for version in found]))",
    )
    assert len(weights) == len(set(weights))


def test_deployed_flows_complete_on_the_nodes_with_everything_on_servers(topology, tmp_path):
    photos = photo_folder(tmp_path / "photos", 4)
    topology.deploy()
    topology.start_worker()
    runs = {
        "build-patches": {"dataset": "sample", "side": 48, "stride": 24, "store": "deployed"},
        "study": {"recipes": ["quickres-qf10"], "steps": 120, "workers": 2, "threads": 1},
        "restore-batch": {"inputs": str(photos), "outputs": "s3://qf-stores/restored"},
    }
    for flow, parameters in runs.items():
        given = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
        command = ["prefect", "deployment", "run", f"{flow}/default", *given, "--watch"]
        assert "Completed" in topology.run(command).end()
    topology.worker.kill()
    listed = topology.begin("patches", "list").end()
    assert "deployed" in listed
    restored = topology.run(
        [str(BIN / "python"), "-c", "from storage.batches.manifest import read_results; "
         "print(sorted(read_results('s3://qf-stores/restored')))"]
    ).end()  # fmt: skip
    assert all(photo.name in restored for photo in photos.iterdir())
