"""Work on a graph, side by side: the order, the failures, and how it is stopped."""

import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from contextvars import ContextVar
from threading import Event

import pytest

from flows.steps.side_by_side import walk

NEEDS = {"a": None, "b": "a", "c": "b", "d": None, "e": "d"}
"""Two lines: c from b from a, and e from d."""


def test_a_piece_gets_what_its_need_returned():
    given = {}

    def work(name, start):
        given[name] = start
        return f"{name} done"

    outcomes = walk(NEEDS, work, at_once=2, stop=Event())
    assert given == {"a": None, "b": "a done", "c": "b done", "d": None, "e": "d done"}
    assert [*outcomes] == [*NEEDS]
    assert {name: outcome.value for name, outcome in outcomes.items()} == {
        name: f"{name} done" for name in NEEDS
    }


def test_a_failure_stops_only_what_needs_it():
    def work(name, start):
        if name == "a":
            raise OSError("disk full")
        return name

    outcomes = walk(NEEDS, work, at_once=2, stop=Event())
    assert str(outcomes["a"].error) == "disk full"
    assert [outcomes[name].skipped_for for name in "bc"] == ["a", "a"]
    assert [outcomes[name].value for name in "de"] == ["d", "e"]


@pytest.mark.parametrize("at_once", [1, 2])
def test_as_many_run_side_by_side_as_are_allowed_and_no_more(at_once):
    running, most, lock = [], [], threading.Lock()

    def work(name, start):
        with lock:
            running.append(name)
            most.append(len(running))
        time.sleep(0.05)
        with lock:
            running.remove(name)
        return name

    walk(NEEDS, work, at_once=at_once, stop=Event())
    assert max(most) == at_once


def test_work_sees_the_context_of_its_caller():
    seen = ContextVar("seen", default="nothing")
    seen.set("the flow run")
    outcomes = walk({"a": None}, lambda name, start: seen.get(), at_once=1, stop=Event())
    assert outcomes["a"].value == "the flow run"


def test_an_interrupt_ends_all_work_before_it_goes_on():
    stop, started, ended = Event(), threading.Barrier(3), []

    def work(name, start):
        started.wait(5)
        stop.wait(5)
        ended.append(name)
        raise CancelledError

    def interrupt_main():
        started.wait(5)
        time.sleep(0.2)  # until the main thread waits
        os.kill(os.getpid(), signal.SIGUSR1)

    def interrupted(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupted)  # as a Ctrl-C, which a shell may ignore
    threading.Thread(target=interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        walk(NEEDS, work, at_once=2, stop=stop)
    signal.signal(signal.SIGUSR1, before)
    assert sorted(ended) == ["a", "d"]
