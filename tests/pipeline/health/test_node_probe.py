"""What a machine says of itself, with this package and without it."""

import subprocess
import sys
from importlib.metadata import version

from ray import cloudpickle
from ray.cloudpickle.cloudpickle_fast import dumps

from pipeline.health import node_probe
from pipeline.health.node_probe import probe, try_root

WITHOUT_US = """
import pickle, sys
sys.path = [folder for folder in sys.path if folder]
for name in ("models", "pipeline", "storage"):
    sys.modules[name] = None
print(pickle.load(sys.stdin.buffer)({"stores": "/tmp"}, "mark"))
"""


def test_this_machine_has_what_it_needs(tmp_path):
    told = probe({"stores": str(tmp_path / "new" / "stores")}, None)
    assert told["roots"] == {"stores": ""}
    assert told["versions"]["torch"] == version("torch").partition("+")[0]
    assert {"ray", "pillow", "jpeg", "numpy", "pyarrow", "code"} <= set(told["versions"])
    assert all(0 < free <= total for free, total in told["disks"].values())
    assert list((tmp_path / "new" / "stores").iterdir()) == [], "nothing is left"


def test_a_node_without_the_package_answers_all_the_same(tmp_path):
    cloudpickle.register_pickle_by_value(node_probe)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US],
        cwd=tmp_path, input=dumps(probe), capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    told = eval(done.stdout)
    assert "code" not in told["versions"]
    assert told["versions"]["torch"] == version("torch").partition("+")[0]
    assert told["roots"]["stores"].startswith("was not tried")


def test_a_place_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "Not a directory" in try_root(str(tmp_path / "file" / "stores"))
    assert "cannot be written" in try_root("/proc/stores")
    assert "nowhere://" in try_root("nowhere://bucket/stores")


def test_another_folder_of_the_same_name_is_told_by_its_mark(tmp_path):
    assert "another folder" in try_root(str(tmp_path), "mark")
    (tmp_path / "mark").touch()
    assert try_root(str(tmp_path), "mark") == ""
