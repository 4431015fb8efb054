"""What several test modules share: real images, a real Ray."""

import gc
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.references import list_images
from pipeline.images.luma import read_luma
from storage import files
from tests.support import times

SLOW_MODULE = re.compile(r"^pytestmark = .*pytest\.mark\.slow", re.MULTILINE)
CLUSTER = Path(__file__).parent / "cluster"
ALONE = re.compile(r"pytest\.mark\.alone")

MINUTES = {"test_deployments.py", "test_lost_nodes.py", "test_end_to_end.py", "test_study.py"}
"""Modules that take that long."""

gc.disable()  # until all is imported, which stays: looking for garbage is a quarter of the time


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules unread of which no test is asked for: their imports take seconds."""
    asked = config.option.markexpr
    if collection_path == CLUSTER:
        return asked != "cluster" or None
    if asked not in ("not slow", "alone") or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text()
    unasked = SLOW_MODULE.search(text) if asked == "not slow" else not ALONE.search(text)
    return bool(unasked) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest modules, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in MINUTES, item.path not in slow))


def pytest_collection_finish() -> None:
    """Look for garbage from here on, and not in what was imported."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Stop what the tests of this process shared, if one of them started it."""
    if (shared := sys.modules.get("tests.support.flow_workspace")) is not None:
        shared.stop_services()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each folder's tests took, all processes summed, beside its budget."""
    reports = [r for some in terminalreporter.stats.values() for r in some]
    durations = [(r.nodeid, r.duration) for r in reports if isinstance(r, pytest.TestReport)]
    terminalreporter.write_sep("=", "seconds by folder")
    for line in times.lines(times.seconds_by_folder(durations), times.read_budget()):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def datasets_root() -> Path:
    """The folder with LIVE1/, Classic5/ and BSDS500/; the test is skipped where there is none."""
    root = os.environ.get("QFACTORY_DATASETS")
    if not root or not Path(root, "LIVE1").is_dir():
        pytest.skip("QFACTORY_DATASETS names no folder with LIVE1/, Classic5/ and BSDS500/")
    return Path(root)


@pytest.fixture(scope="session")
def photographs() -> list[tuple[str, np.ndarray]]:
    """(name, luma) of sample's held-out photographs, (H, W) uint8: 512x512, 300x451, 400x600."""
    images = list_images("sample", root=None, purpose="evaluate")
    return [(image.name, read_luma(files.read_bytes(image.uri), image.name)) for image in images]


@pytest.fixture
def ray_cluster():
    """The Ray of two cores of this process, which all tests share."""
    from pipeline import cluster  # Ray, which most tests do without

    cluster.connect(None, cpus=2)


@pytest.fixture
def processor(monkeypatch):
    """Return a function that makes this the processor of another machine."""
    from pipeline.served import precision  # torch, which many tests do without

    def becomes(units):
        monkeypatch.setattr(precision, "bfloat16_units", lambda device: units)

    becomes("AVX512-BF16")  # torch computes in bfloat16 everywhere, if slowly
    return becomes
