"""The dependency table: which package may import which, and where each library lives."""

import ast
import re
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
        "pipeline/training/ray_worker.py",
        "pipeline/restoring/ray_data.py",
        "pipeline/health/nodes.py",
    },
    "mlflow": {"storage/tracking/", "storage/registry/", "pipeline/served/model.py"},
    "pyarrow": {"storage/patches/", "storage/batches/", "pipeline/loading/loader.py"},
    "lmdb": {"pipeline/patches/export_formats.py"},
    "fsspec": {"storage/", "pipeline/datasets/folders.py"},
    "safetensors": {"storage/", "pipeline/networks/weights.py"},
    "pooch": {"pipeline/datasets/download.py"},
    "altair": {"pipeline/drawing/"},
    "vl_convert": {"pipeline/drawing/charts.py"},
    "jinja2": {"pipeline/reports/html.py", "flows/reporting/model_cards.py"},
}
ROOMS: dict[str, set[str]] = {
    "flows/cli": set(),
    "flows/planning": set(),
    "flows/reporting": {"flows/planning"},
    "flows/steps": {"flows/planning", "flows/reporting"},
    "flows/commands": {"flows/cli", "flows/planning", "flows/reporting", "flows/steps"},
    "models/layers": set(),
    "models/measuring": set(),
    "pipeline/datasets": {"pipeline/images"},
    "pipeline/recipes": set(),
    "pipeline/served": set(),
    "pipeline/health": set(),
    "pipeline/images": {"pipeline/served"},
    "pipeline/drawing": {"pipeline/images"},
    "pipeline/loading": {"pipeline/images"},
    "pipeline/networks": {"pipeline/recipes", "pipeline/served"},
    "pipeline/patches": {"pipeline/datasets", "pipeline/images"},
    "pipeline/training": {
        "pipeline/datasets",
        "pipeline/loading",
        "pipeline/networks",
        "pipeline/recipes",
    },
    "pipeline/restoring": {
        "pipeline/datasets",
        "pipeline/images",
        "pipeline/networks",
        "pipeline/served",
    },
    "pipeline/evaluation": {
        "pipeline/datasets",
        "pipeline/drawing",
        "pipeline/images",
        "pipeline/networks",
        "pipeline/served",
    },
    "pipeline/reports": {
        "pipeline/drawing",
        "pipeline/evaluation",
        "pipeline/images",
        "pipeline/networks",
    },
    "storage/batches": set(),
    "storage/patches": set(),
    "storage/tracking": set(),
    "storage/registry": {"storage/tracking"},
}
"""Folder -> the other folders of its package that it may import; a circle cannot be written down
here without being seen."""
MOST_ENTRIES = 12
MORE_ENTRIES = {
    "flows": 16,
    "flows/commands": 19,
    "models": 22,
    "pipeline": 17,
    "pipeline/recipes": 18,
}
"""Folders with more: the flows by name and the rooms, one file a command, a paper, a family."""
TRAVELS = {"torch", "numpy", "PIL", "mlflow"}
STANDALONE = {"torch", "numpy", "pyarrow", "PIL", "safetensors", "fsspec"}
RUNS_WITHOUT_A_CLUSTER = (
    "pipeline.training.__main__",
    "pipeline.evaluation.protocol",
    "pipeline.recipes",
    "pipeline.loading.iterable_pairs",
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


def room_of(module):
    """The folder of a module below its package, None for what lies in the package itself."""
    parts = Path(*module.split("."))
    while not (PROJECT / parts).is_dir():
        parts = parts.parent
    return parts.as_posix() if len(parts.parts) > 1 else None


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_the_rooms_that_the_table_says(room):
    found = {
        other
        for path in (PROJECT / room).rglob("*.py")
        for name in imports_of(path)
        if name.split(".")[0] == room.split("/")[0] and (other := room_of(name)) is not None
    }
    assert found - {room} == ROOMS[room]


def test_every_folder_is_a_room_of_the_table_and_none_leads_back_to_itself():
    folders = {path.parent.relative_to(PROJECT).as_posix() for path in MODULES}
    assert folders - set(PACKAGES) == set(ROOMS)
    left = dict(ROOMS)
    while free := [room for room, needs in left.items() if not needs & left.keys()]:
        for room in free:
            del left[room]
    assert not left, "these import each other in a circle"


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_two_files_of_a_package_have_one_name(package):
    names = [path.stem for path in (PROJECT / package).rglob("*.py") if "__" not in path.stem]
    assert sorted(names) == sorted(set(names))


FLOWS = {f"flows.{name}" for name in ("study", "train", "evaluate", "analyze", "report")} | {
    "flows.build_patches",
    "flows.restore_batch",
}


@pytest.mark.parametrize("room", ["flows/cli", "flows/planning", "flows/reporting", "flows/steps"])
def test_what_flows_are_made_of_imports_no_flow(room):
    for path in (PROJECT / room).rglob("*.py"):
        assert not FLOWS & set(imports_of(path)), path


@pytest.mark.parametrize("folder", [*PACKAGES, *sorted(ROOMS)])
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    entries = [p.name for p in (PROJECT / folder).iterdir() if not p.name.startswith("__")]
    assert len(entries) <= MORE_ENTRIES.get(folder, MOST_ENTRIES), sorted(entries)


def test_the_readme_names_files_that_exist_where_it_says_where_to_change_what():
    text = (PROJECT / "README.md").read_text()
    section = text.partition("## Where to change what")[2].partition("\n## ")[0]
    named = re.findall(r"`([\w/]+\.(?:py|csv|html|sha256|yaml))`", section)
    assert len(named) >= 15
    assert [name for name in named if not (PROJECT / name).is_file()] == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_the_readme_says_of_a_room_what_its_init_says(room):
    told = ast.get_docstring(ast.parse((PROJECT / room / "__init__.py").read_text()))
    assert told is not None
    rooms = (PROJECT / "README.md").read_text().partition("## Rooms")[2]
    assert f"{Path(room).name}/ {told.splitlines()[0]}" in re.sub(" +", " ", rooms)


def test_a_breach_would_be_found():
    found = list(breaches(PROJECT / "models" / "arcnn.py", ["storage.files", "ray", "torch"]))
    assert len(found) == 2


def test_the_environment_is_read_in_settings_alone():
    readers = [
        place_of(path)
        for path in MODULES
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert readers == ["flows/settings.py", "pipeline/training/ray_worker.py"]  # sets gloo's


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
