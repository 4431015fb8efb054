"""infra/compose.yaml: valid by the Compose specification, and whole."""

import json
import re
import tomllib
from importlib.resources import files

import jsonschema
import pytest

from flows.settings import Settings
from tests.support.infra_files import INFRA, SECRET, documents, hosts_of
from tests.support.project import PROJECT

(COMPOSE,) = documents(INFRA / "compose.yaml")
SERVICES = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
ONCE = {"bucket", "deploy"}
HERE = {"127.0.0.1", "localhost", "0.0.0.0"}


def test_it_is_what_the_compose_specification_allows():
    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text())
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "services": {"a": {"imagee": "a"}}}, schema)


@pytest.mark.parametrize("name", OURS)
def test_our_image_is_of_this_version_and_confined(name):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    service = SERVICES[name]
    assert service["image"] == f"qfactory:{project['version']}"
    assert (INFRA / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "/tmp" in service["volumes"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_pinned_limited_and_started_again(name):
    service = SERVICES[name]
    assert re.search(r":[\w.-]*\d[\w.-]*$", service["image"])
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert service["restart"].startswith("on-failure" if name in ONCE else "unless-stopped")


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))
def test_what_goes_on_says_whether_it_is_well(name):
    service = SERVICES[name]
    assert "healthcheck" in service or service["environment"]["HEALTH_URL"].startswith("http")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_a_service_names_is_there(name):
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    assert {c["source"] for c in service.get("configs", [])} <= COMPOSE["configs"].keys()
    named = {v.split(":")[0] for v in service.get("volumes", []) if not v.startswith("/")}
    assert named <= COMPOSE["volumes"].keys()
    assert set(service.get("depends_on", {})) <= SERVICES.keys()
    texts = [str(v) for v in (service.get("environment") or {}).values()]
    options = [c.partition("=")[2] for c in service.get("command", []) if c.startswith("--")]
    led_to = set().union(*map(hosts_of, [*texts, *options]))
    assert led_to - HERE <= SERVICES.keys()


def test_a_service_waits_for_the_end_of_what_ends_and_for_the_health_of_the_rest():
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how["condition"] == wanted


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_secrets_come_as_files_that_the_service_has(name):
    service = SERVICES[name]
    found = {k: v for k, v in (service.get("environment") or {}).items() if SECRET.search(k)}
    for variable, value in found.items():
        assert variable.endswith(("_FILE", "_PATH"))
        assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert all("file" in secret for secret in COMPOSE["secrets"].values())
    assert not re.search(r"//\w+:[^@\s]+@", str(service)), "a password in a URL"


def test_ports_are_on_loopback():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_variables_of_qfactory_are_settings():
    named = {
        variable
        for service in SERVICES.values()
        for variable in service.get("environment") or {}
        if variable.startswith("QFACTORY_")
    }
    known = {f"QFACTORY_{field}".upper() for field in Settings.model_fields}
    assert named - known == {"QFACTORY_POOL"}


def test_mlflow_answers_by_the_name_that_its_clients_use():
    allowed = SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    uri = SERVICES["prefect-worker"]["environment"]["MLFLOW_TRACKING_URI"]
    assert uri.removeprefix("http://") in allowed


def test_the_databases_of_both_servers_are_made():
    made = COMPOSE["configs"]["databases"]["content"]
    for service, variable in (
        ("mlflow", "MLFLOW_BACKEND_STORE_URI"),
        ("prefect-server", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
    ):
        database = SERVICES[service]["environment"][variable].rpartition("/")[2]
        assert f"CREATE DATABASE {database};" in made
