"""The time of the tests, folder by folder."""

from tests.support import times
from tests.support.project import PROJECT


def test_seconds_are_summed_by_folder_and_what_is_over_its_budget_says_so():
    spent = times.seconds_by_folder(
        [("tests/a/test_x.py::test_1[b/c]", 2.0), ("tests/a/test_y.py::test_2", 3.0),
         ("tests/test_z.py::test_3", 4.0)]
    )  # fmt: skip
    assert spent == {"tests": 4.0, "tests/a": 5.0}
    dearest, other = times.lines(spent, {"tests": 4, "tests/a": 4})
    assert dearest.split() == ["5.0", "s", "tests/a", "OVER", "its", "budget", "of", "4", "s"]
    assert other.split() == ["4.0", "s", "tests"]


def test_every_folder_of_tests_has_a_budget():
    folders = {
        path.parent.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "tests").rglob("test_*.py")
    }
    assert folders == times.read_budget().keys()
