"""Both work pools: infra/prefect.yaml deploys to either, and what a run is on Kubernetes."""

import ast
import json
from uuid import uuid4

import kubernetes_validate
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import apply_values
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from tests.support.infra_files import INFRA, KUBERNETES, documents, values_of
from tests.support.project import PROJECT

RELEASE = "1.33"
(DECLARED,) = documents(INFRA / "prefect.yaml")
COMPOSE = documents(INFRA / "compose.yaml")[0]["services"]
TEMPLATE = json.loads((KUBERNETES / "base-job-template.json").read_text())
SETTINGS = {d["metadata"]["name"]: d["data"] for d in documents(KUBERNETES / "base/settings.yaml")}
POOLS = [
    COMPOSE["deploy"]["environment"]["QFACTORY_POOL"],
    SETTINGS["qfactory-prefect"]["QFACTORY_POOL"],
]


@pytest.mark.parametrize("pool", POOLS)
def test_one_variable_says_which_pool_all_flows_are_deployed_to(pool, monkeypatch):
    monkeypatch.setenv("QFACTORY_POOL", pool)
    deployed = apply_values({"all": DECLARED["deployments"]}, {}, remove_notset=False)
    assert set(values_of(deployed, "name")) == {"default", pool}
    assert set(values_of(deployed, "work_queue_name")) == {"data", "training"}


@pytest.mark.parametrize("entrypoint", [d["entrypoint"] for d in DECLARED["deployments"]])
def test_a_deployment_leads_to_a_flow(entrypoint):
    file, _, name = entrypoint.partition(":")
    tree = ast.parse((PROJECT / file).read_text())
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    assert any(ast.unparse(d).startswith("flow(") for d in function.decorator_list)


def test_the_code_is_where_the_worker_or_the_image_says_never_where_somebody_deployed():
    assert "$PWD" not in json.dumps(DECLARED["pull"])
    (folder,) = values_of(DECLARED["pull"], "directory")
    assert folder == "{{ $QFACTORY_CODE }}"
    dockerfile = (INFRA / "Dockerfile").read_text()
    assert "QFACTORY_CODE=/opt/qfactory " in dockerfile
    assert "WORKDIR /opt/qfactory\n" in dockerfile


def test_workers_take_runs_from_the_pools_that_are_deployed_to():
    assert f"--pool={POOLS[0]}" in COMPOSE["prefect-worker"]["command"]
    worker = documents(KUBERNETES / "base/prefect-worker.yaml")[-1]
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert "--pool=$(QFACTORY_POOL)" in container["args"]
    assert {"configMapRef": {"name": "qfactory-prefect"}} in container["envFrom"]


@pytest.fixture(scope="module")
def job():
    """The Job of a flow run, as Prefect's worker makes it of the template."""
    variables = TEMPLATE["variables"]["properties"]
    values = {name: v["default"] for name, v in variables.items() if "default" in v}
    environment = DECLARED["deployments"][0]["work_pool"]["job_variables"]["env"]
    filled = apply_values(TEMPLATE["job_configuration"], {**values, "env": environment})
    configuration = KubernetesWorkerJobConfiguration(**filled)
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a run"))
    return configuration.job_manifest


def test_a_flow_run_is_a_job_that_kubernetes_allows(job):
    kubernetes_validate.validate(job, RELEASE, strict=True)


def test_a_flow_run_drives_ray_beside_a_node_and_has_the_settings_and_the_token(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/opt/qfactory/infra/beside-ray.sh"]
    assert (INFRA / "beside-ray.sh").is_file()
    assert container["args"][-3:] == ["prefect", "flow-run", "execute"]
    assert {e["configMapRef"]["name"] for e in container["envFrom"] if "configMapRef" in e} == {
        "qfactory-work", "qfactory-bucket", "qfactory-flow-runs",
    }  # fmt: skip
    names = {variable["name"]: variable["value"] for variable in container["env"]}
    assert names["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    token = SETTINGS["qfactory-flow-runs"]["RAY_AUTH_TOKEN_PATH"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert token == f"{mounts['ray-token']}/auth_token"
    assert mounts.keys() == {v["name"] for v in job["spec"]["template"]["spec"]["volumes"]}


def test_a_run_may_ask_for_what_the_template_declares():
    used = json.dumps(TEMPLATE["job_configuration"])
    for name in TEMPLATE["variables"]["properties"]:
        assert f"{{{{ {name} }}}}" in used


def test_the_namespace_of_jobs_is_that_of_the_rest():
    (base,) = documents(KUBERNETES / "base/kustomization.yaml")
    assert TEMPLATE["variables"]["properties"]["namespace"]["default"] == base["namespace"]
