"""infra/kubernetes: valid by the schemas of Kubernetes, and whole, as the overlays are applied."""

import json
import re
import shutil
import subprocess
import tomllib
from functools import cache

import jsonschema
import kubernetes_validate
import pytest
import yaml

from flows.settings import Settings
from tests.support.infra_files import KUBERNETES, SECRET, documents, hosts_of, pins, values_of
from tests.support.project import PROJECT

RELEASE = "1.33"
OVERLAYS = ("local", "production")
FOLDERS = ("base", *OVERLAYS)
SECRETS = {
    "qfactory-postgres": {"PGPASSWORD"},
    "qfactory-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "qfactory-ray": {"auth_token"},
}
OUTSIDE = {"127.0.0.1", "postgres.internal"}
"""Hosts that are no service of ours: the pod itself, and production's database."""
RAYCLUSTER = json.loads((PROJECT / "tests/infra/raycluster.schema.json").read_text())

needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not here")


def kustomization(folder):
    (found,) = documents(KUBERNETES / folder / "kustomization.yaml")
    return found


def pod_templates(document):
    """The templates of pods in a manifest, those of a RayCluster too."""
    return list(values_of(document.get("spec", {}), "template"))


def check(document):
    """Raise an exception when a manifest is not what its schema allows."""
    if document["kind"] != "RayCluster":
        kubernetes_validate.validate(document, RELEASE, strict=True)
        return
    jsonschema.validate(document, RAYCLUSTER)
    for template in pod_templates(document):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a"}}
        kubernetes_validate.validate({**pod, "template": template}, RELEASE, strict=True)


def whole(folder):
    """The manifests of the files that a folder lists, and of the base that it adds to."""
    listed = kustomization(folder)["resources"]
    places = [KUBERNETES / folder / name for name in listed]
    return [
        document
        for place in places
        for document in (documents(place) if place.is_file() else whole(place.name))
    ]


@cache
def built(overlay):
    """The manifests of an overlay, as they are applied."""
    command = ["kubectl", "kustomize", KUBERNETES / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


@pytest.mark.parametrize("folder", FOLDERS)
def test_manifests_are_what_kubernetes_allows(folder):
    for document in whole(folder):
        check(document)


def test_the_schemas_find_what_is_wrong():
    (ray,) = documents(KUBERNETES / "base" / "raycluster.yaml")
    for place, wrong in ((ray["spec"], "workerGroups"), (pod_templates(ray)[0]["spec"], "volume")):
        place[wrong] = []
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            check(ray)
        del place[wrong]
    check(ray)


@pytest.mark.slow
@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_into_manifests_that_kubernetes_allows(overlay):
    assert len(built(overlay)) >= len(whole("base"))
    for document in built(overlay):
        check(document)
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "qfactory"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_a_folder_is_listed_and_every_patch_has_a_target(folder):
    listed = kustomization(folder)
    patches = listed.get("patches", [])
    files = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    named = {*listed["resources"], *(patch["path"] for patch in patches)}
    assert {name for name in named if name.endswith(".yaml")} == files
    known = {(d["kind"], d["metadata"]["name"]) for d in whole(folder)}
    for patch in patches:
        if "target" in patch:
            assert (patch["target"]["kind"], patch["target"]["name"]) in known
        else:
            for document in documents(KUBERNETES / folder / patch["path"]):
                assert (document["kind"], document["metadata"]["name"]) in known


@pytest.mark.parametrize("folder", OVERLAYS)
def test_config_maps_secrets_accounts_and_claims_that_pods_name_are_there(folder):
    manifests = whole(folder)
    names = {(d["kind"], d["metadata"]["name"]) for d in manifests}
    for name in values_of(manifests, "configMapRef"):
        assert ("ConfigMap", name["name"]) in names
    for name in values_of(manifests, "serviceAccountName"):
        assert ("ServiceAccount", name) in names
    for name in values_of(manifests, "secretRef"):
        assert name["name"] in SECRETS
    for key in values_of(manifests, "secretKeyRef"):
        assert key["key"] in SECRETS[key["name"]]
    (ray,) = [d for d in manifests if d["kind"] == "RayCluster"]
    assert ray["spec"]["authOptions"]["secretName"] in SECRETS
    for template in (t for d in manifests for t in pod_templates(d)):
        volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
        claims = {claim["metadata"]["name"] for claim in claims_of(manifests, template)}
        mounted = {mount["name"] for mount in next(values_of(template, "volumeMounts"), [])}
        assert mounted == volumes | claims


def claims_of(manifests, template):
    """The claims of the StatefulSet that a template is of."""
    sets = [d["spec"] for d in manifests if d["kind"] == "StatefulSet"]
    return [claim for s in sets if s["template"] is template for claim in s["volumeClaimTemplates"]]


@pytest.mark.slow
@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_host_that_a_setting_leads_to_is_a_service(overlay):
    manifests = built(overlay)
    services = {d["metadata"]["name"] for d in manifests if d["kind"] == "Service"}
    clusters = {d["metadata"]["name"] for d in manifests if d["kind"] == "RayCluster"}
    services |= {f"{name}-head-svc" for name in clusters}
    settings = [d["data"] for d in manifests if d["kind"] == "ConfigMap"]
    values = [value for data in settings for value in data.values() if ":" in value]
    led_to = set().union(*(hosts_of(value) for value in values if not value.startswith("s3:")))
    assert {host for host in led_to if not host.startswith("qfactory")} <= services | OUTSIDE
    assert {"mlflow", "prefect-server", "ray-head-svc"} <= led_to


def test_a_service_has_the_port_and_the_pods_that_it_names():
    manifests = whole("local")
    sets = [d["spec"]["template"] for d in manifests if d["kind"] in ("Deployment", "StatefulSet")]
    for service in (d["spec"] for d in manifests if d["kind"] == "Service"):
        (template,) = [t for t in sets if t["metadata"]["labels"] == service["selector"]]
        ports = {port["name"] for port in next(values_of(template, "ports"))}
        assert {port["targetPort"] for port in service["ports"]} <= ports


@pytest.mark.parametrize("folder", OVERLAYS)
def test_pods_are_confined_and_say_what_they_need(folder):
    for template in (t for document in whole(folder) for t in pod_templates(document)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["enableServiceLinks"] is False, "a service `mlflow` would set MLFLOW_PORT"
        for container in pod["containers"]:
            confined = container["securityContext"]
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert confined["allowPrivilegeEscalation"] is False
            ours = container["image"].startswith("qfactory:")
            assert confined.get("readOnlyRootFilesystem", False) == ours
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_versions_are_those_of_the_constraints_and_of_the_project():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    (ray,) = documents(KUBERNETES / "base" / "raycluster.yaml")
    assert ray["spec"]["rayVersion"] == pins()["ray"]
    (prefect,) = documents(PROJECT / "infra" / "prefect.yaml")
    assert prefect["prefect-version"] == pins()["prefect"]
    images = set(values_of(whole("local"), "image"))
    assert f"qfactory:{version}" in images
    assert all(re.search(r":[\w.-]*\d[\w.-]*$", image) for image in images)
    (named,) = kustomization("production")["images"]
    places = documents(KUBERNETES / "production" / "places.yaml")
    image = f"{named.get('newName', named['name'])}:{named['newTag']}"
    assert [d["data"]["QFACTORY_IMAGE"] for d in places if "QFACTORY_IMAGE" in d["data"]] == [image]


@pytest.mark.parametrize("folder", OVERLAYS)
def test_no_secret_is_written_down(folder):
    manifests = whole(folder)
    assert "Secret" not in {document["kind"] for document in manifests}
    for variable in (one for many in values_of(manifests, "env") for one in many):
        assert not SECRET.search(variable["name"]) or "valueFrom" in variable
    for data in (d["data"] for d in manifests if d["kind"] == "ConfigMap"):
        assert not [k for k in data if SECRET.search(k) and not k.endswith("_PATH")]
        assert not [v for v in data.values() if re.search(r"//\w+:[^@\s]+@", v)]


def test_pods_are_reached_from_their_namespace_alone():
    (policy,) = [d["spec"] for d in whole("base") if d["kind"] == "NetworkPolicy"]
    assert policy["podSelector"] == {}, "all pods"
    assert policy["ingress"] == [{"from": [{"podSelector": {}}]}], "all pods of the namespace"


def test_ray_begins_without_nodes_and_its_head_takes_no_work():
    (ray,) = documents(KUBERNETES / "base" / "raycluster.yaml")
    assert ray["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in ray["spec"]["workerGroupSpecs"]}
    assert [group["minReplicas"] for group in groups.values()] == [0, 0]
    for name, has_gpu in (("cpu", False), ("gpu", True)):
        limits = groups[name]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == has_gpu


def test_what_must_not_be_evicted_is_what_the_budgets_select():
    manifests = whole("base")
    budgets = {d["metadata"]["name"]: d["spec"] for d in manifests if "Budget" in d["kind"]}
    (ray,) = [d["metadata"]["name"] for d in manifests if d["kind"] == "RayCluster"]
    assert budgets["ray-head"]["selector"]["matchLabels"]["ray.io/cluster"] == ray
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    pods = [t["metadata"]["labels"] for t in values_of([*manifests, template], "template")
            if "labels" in t.get("metadata", {})]  # fmt: skip
    for name in ("flow-runs", "mlflow"):
        wanted = budgets[name]["selector"]["matchLabels"]
        assert any(wanted.items() <= labels.items() for labels in pods)


def test_variables_of_qfactory_are_settings():
    maps = [d["data"] for d in whole("production") if d["kind"] == "ConfigMap"]
    named = {key for data in maps for key in data if key.startswith("QFACTORY_")}
    known = {f"QFACTORY_{field}".upper() for field in Settings.model_fields}
    assert named - known == {"QFACTORY_IMAGE", "QFACTORY_POOL"}
