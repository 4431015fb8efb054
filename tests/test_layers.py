"""The dependency table: which package may import which, and where each library lives."""

import ast
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "pipeline", "models", "storage")
MAY_IMPORT = {
    "flows": {"flows", "pipeline", "models", "storage"},
    "pipeline": {"pipeline", "models", "storage"},
    "models": {"models"},
    "storage": {"storage"},
}
HOMES = {
    "prefect": {"flows/"},
    "cyclopts": {"flows/"},
    "rich": {"flows/"},
    "pydantic_settings": {"flows/settings.py"},
    "ray": {
        "pipeline/cluster.py",
        "pipeline/training/ray_train.py",
        "pipeline/restoring/ray_data.py",
    },
    "mlflow": {"storage/tracking/", "storage/registry/", "pipeline/served/model.py"},
    "pyarrow": {"storage/patches/", "storage/batches/", "pipeline/loading/loader.py"},
    "fsspec": {"storage/", "pipeline/datasets/folders.py"},
    "safetensors": {"storage/", "pipeline/networks/weights.py"},
    "pooch": {"pipeline/datasets/download.py"},
    "altair": {"pipeline/drawing/"},
    "vl_convert": {"pipeline/drawing/charts.py"},
    "jinja2": {"pipeline/reports/html.py"},
}
TRAVELS = {"torch", "numpy", "PIL", "mlflow"}
STANDALONE = {"torch", "numpy", "pyarrow", "PIL", "safetensors", "fsspec"}
RUNS_WITHOUT_A_CLUSTER = (
    "pipeline.training.train",
    "pipeline.evaluation.protocol",
    "pipeline.recipes",
)
MODULES = sorted(p for package in PACKAGES for p in (PROJECT / package).rglob("*.py"))


def imports_of(path):
    """Every module that a file imports, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = list(path.relative_to(PROJECT).parts[: -node.level]) if node.level else []
            module = ".".join([*here, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def place_of(path):
    return path.relative_to(PROJECT).as_posix()


def breaches(path, imported):
    """What a file of a package imports although it must not."""
    place = place_of(path)
    package = place.split("/")[0]
    for name in imported:
        top = name.split(".")[0]
        if top in PACKAGES and top not in MAY_IMPORT[package]:
            yield f"{place} imports {name}"
        if top in HOMES and not any(place.startswith(home) for home in HOMES[top]):
            yield f"{place} imports {name}, which lives in {sorted(HOMES[top])}"


@pytest.mark.parametrize("path", MODULES, ids=place_of)
def test_imports_keep_to_the_table(path):
    assert sorted(set(breaches(path, imports_of(path)))) == []


@pytest.mark.parametrize("path", sorted((PROJECT / "pipeline/served").glob("*")), ids=place_of)
def test_what_travels_with_a_model_needs_nothing_of_this_project(path):
    if path.name == "__pycache__":
        return
    assert path.suffix == ".py", "only Python files are copied"
    tree = ast.walk(ast.parse(path.read_text()))
    absolute = [node for node in tree if isinstance(node, ast.ImportFrom) and not node.level]
    assert not [node.module for node in absolute if str(node.module).split(".")[0] in PACKAGES]
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert tops - sys.stdlib_module_names <= TRAVELS | {"pipeline"}
    inside = [name for name in imports_of(path) if name.split(".")[0] == "pipeline"]
    assert all(name.startswith("pipeline.served") for name in inside)


def test_a_breach_would_be_found():
    found = list(breaches(PROJECT / "models" / "arcnn.py", ["storage.files", "ray", "torch"]))
    assert len(found) == 2


def test_the_environment_is_read_in_settings_alone():
    readers = [
        place_of(path)
        for path in MODULES
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert readers == ["flows/settings.py"]


@pytest.mark.parametrize("start", RUNS_WITHOUT_A_CLUSTER)
def test_training_and_evaluation_need_no_ray_prefect_or_mlflow(start):
    seen, todo = set(), [start]
    foreign = set()
    while todo:
        module = todo.pop()
        path = PROJECT / (module.replace(".", "/") + ".py")
        if not path.exists():
            path = PROJECT / module.replace(".", "/") / "__init__.py"
        if module in seen or not path.exists():
            continue
        seen.add(module)
        for name in imports_of(path):
            (todo.append if name.split(".")[0] in PACKAGES else foreign.add)(name)
    third_party = {name.split(".")[0] for name in foreign} - sys.stdlib_module_names
    assert third_party <= STANDALONE
