"""The graph of recipes and the walk through it, without Prefect and Ray."""

import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from contextvars import ContextVar
from threading import Event

import pytest

from flows.planning.recipe_graph import children_of, lineage, matching, ordered_recipes
from flows.planning.side_by_side import walk
from pipeline.recipes import RECIPES

NEEDS = {"a": None, "b": "a", "c": "b", "d": None, "e": "d"}
"""Two lines: c from b from a, and e from d."""


def test_a_glob_means_all_recipes_that_it_matches():
    assert matching("arcnn-qf?0") == [f"arcnn-qf{qf}" for qf in (10, 20, 30, 40)]
    assert matching("*") == list(RECIPES)
    assert matching("arcnn-qf20") == ["arcnn-qf20"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("arcnnn-qf1*", r"no recipe matches 'arcnnn-qf1\*'.*arcnn-qf10"),
        ("arcn-qf10", "unknown recipe 'arcn-qf10'.*arcnn-qf10"),
        ("@*", "no recipe matches.*quickres-qf10"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_what_is_near(pattern, told):
    with pytest.raises(ValueError, match=told):
        matching(pattern)


def test_every_recipe_comes_once_and_after_the_one_it_starts_from():
    ordered = [recipe.name for recipe in ordered_recipes(["*", "arcnn-qf10"])]
    assert sorted(ordered) == sorted(RECIPES)
    for name in ordered:
        before = [recipe.name for recipe in lineage(name)[1:]]
        assert all(ordered.index(start) < ordered.index(name) for start in before)


def test_what_a_transfer_needs_is_added():
    hard = "arcnn-qf10-from-qf20"
    assert [r.name for r in ordered_recipes([hard])] == ["arcnn-qf20", hard]
    assert hard in [r.name for r in children_of("arcnn-qf20", RECIPES.values())]


def test_steps_replace_those_of_every_recipe():
    assert {recipe.steps for recipe in ordered_recipes(["arcnn-qf10-from-qf20"], 7)} == {7}


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
