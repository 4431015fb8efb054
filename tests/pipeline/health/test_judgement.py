"""What a node answered, beside what this machine says of itself."""

import pytest

from pipeline.health.findings import ERROR, WARNING
from pipeline.health.judgement import NOTED, REFUSED, Asked, check_node, clock_offset

GB = 10**9
VERSIONS = {
    "python": "3.11.9",
    "torch": "2.9.1",
    "ray": "2.60.0",
    "pillow": "12.0.0",
    "numpy": "2.3.5",
    "pyarrow": "25.0.0",
    "jpeg": "libjpeg-turbo 3.1.2",
    "code": "0123456789ab",
}
HERE = {"host": "here", "versions": VERSIONS, "disks": {"/tmp": (50 * GB, 100 * GB)}, "roots": {}}
ROOTS = {"stores": "s3://bucket/stores"}
NODE = {
    "NodeManagerHostname": "node-7",
    "NodeManagerAddress": "10.0.0.7",
    "Resources": {"CPU": 8.0, "GPU": 1.0},
}


def asked(*, ahead=0.0, start_s=0.0, **changes):
    """A node that began `start_s` seconds after it was asked, and answered at once after 1 s."""
    began = 1000.0 + start_s + ahead
    told = {**HERE, "roots": {"stores": ""}, "began": began, "ended": began + 1, **changes}
    return Asked(node=NODE, sent=1000.0, received=1001.0 + start_s, answer=told)


def only_problem(one):
    check = check_node(one, ROOTS, HERE)
    (problem,) = check.problems
    assert problem.mend.endswith("# on node-7")
    return check, problem


def test_a_node_as_this_machine_has_no_problem():
    check = check_node(asked(), ROOTS, HERE)
    assert check.problems == ()
    assert (check.name, check.where) == ("node node-7", "10.0.0.7")
    assert check.facts == {
        "CPU": 8, "GPU": 1, "free GB": 50.0, "clock s": 0.0, "versions": "as here"
    }  # fmt: skip


@pytest.mark.parametrize("name", [*REFUSED, *NOTED])
def test_another_version_is_named_with_both(name):
    check, problem = only_problem(asked(versions={**VERSIONS, name: "1.2.3"}))
    assert problem.what == f"{name} is 1.2.3 there, {VERSIONS[name]} here"
    assert check.facts[name] == "1.2.3"
    assert check.state == (ERROR if name in REFUSED else WARNING)


def test_another_jpeg_library_comes_with_pillow():
    _, problem = only_problem(asked(versions={**VERSIONS, "jpeg": "libjpeg-turbo 2.1.5"}))
    assert problem.mend.startswith("pip install --force-reinstall pillow==12.0.0")


def test_a_node_without_the_package_has_this_one_problem():
    without = {name: version for name, version in VERSIONS.items() if name != "code"}
    check, problem = only_problem(asked(versions=without, roots={"stores": "was not tried"}))
    assert check.state == ERROR
    assert problem.what == "qfactory is not installed there"
    assert problem.mend.startswith("pip install")


@pytest.mark.parametrize(("ahead", "told"), [(600, "600 s ahead of"), (-600, "600 s behind")])
def test_clocks_ten_minutes_apart_are_an_error(ahead, told):
    check, problem = only_problem(asked(ahead=ahead))
    assert check.state == ERROR
    assert told in problem.what


def test_a_node_that_was_slow_to_start_has_no_wrong_clock():
    slow = asked(start_s=30)
    assert clock_offset(slow) == 0
    assert check_node(slow, ROOTS, HERE).problems == ()


@pytest.mark.parametrize(("free", "state"), [(GB // 2, ERROR), (4 * GB, WARNING)])
def test_a_full_disk_is_named(free, state):
    check, problem = only_problem(asked(disks={"/tmp": (free, 100 * GB)}))
    assert check.state == state
    assert "GB are free below /tmp" in problem.what


def test_a_place_that_a_node_cannot_write_to_is_named():
    told = "cannot be written and read back: The specified bucket does not exist"
    _, problem = only_problem(asked(roots={"stores": told}))
    assert problem.what == f"s3://bucket/stores {told}"
    assert problem.mend.startswith("aws s3 mb s3://bucket ")


def test_a_node_that_does_not_answer_is_an_error():
    silent = Asked(node=NODE, sent=0, received=0, answer="does not answer within 25 s")
    check, problem = only_problem(silent)
    assert check.state == ERROR
    assert problem.what == "does not answer within 25 s"
