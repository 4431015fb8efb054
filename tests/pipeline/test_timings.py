"""Where time goes: each kind of work without the work inside it."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import timings
from pipeline.timings import spend, spent, timed


@pytest.fixture(autouse=True)
def from_now_on(monkeypatch):
    monkeypatch.setattr(timings, "_spent", {})
    monkeypatch.setattr(timings, "BEGAN", time.monotonic())


@timed("inner")
def wait(seconds):
    time.sleep(seconds)


def test_work_inside_other_work_counts_once():
    with timed("outer"):
        wait(0.2)
        wait(0.1)
        time.sleep(0.1)
    time.sleep(0.2)
    found = spent()
    assert found == pytest.approx({"inner": 0.3, "outer": 0.1, "other": 0.2}, abs=0.08)
    assert sum(found.values()) == pytest.approx(time.monotonic() - timings.BEGAN, abs=0.01)


def test_what_another_process_did_is_taken_from_the_block_that_waited():
    with timed("start workers"):
        time.sleep(0.2)
        spend("train", 0.15)
    assert spent()["train"] == 0.15
    assert spent()["start workers"] == pytest.approx(0.05, abs=0.04)


def test_threads_do_not_mix_and_a_failure_counts():
    with timed("outer"), ThreadPoolExecutor(2) as pool:
        list(pool.map(wait, [0.1, 0.1]))
    assert spent()["inner"] == pytest.approx(0.2, abs=0.08)
    assert spent()["outer"] >= 0.1
    with pytest.raises(ZeroDivisionError), timed("failed"):
        raise ZeroDivisionError
    assert "failed" in spent()
