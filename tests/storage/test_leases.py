"""Leases: one holder at a time, whoever dies."""

import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event, Lock

import pytest

from storage import leases
from storage.leases import held, holder_of
from tests.support.project import PROJECT


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(leases, "POLL_S", 0.01)


def test_of_several_at_once_one_holds_it_and_all_get_their_turn(tmp_path):
    uri, inside, turns = str(tmp_path / "lease"), Lock(), []

    def take(number):
        with held(uri):
            assert inside.acquire(blocking=False)
            time.sleep(0.02)
            turns.append(number)
            inside.release()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(take, range(8)))
    assert sorted(turns) == [*range(8)]
    assert holder_of(uri) is None


def test_who_waits_is_told_for_whom_and_can_be_stopped(tmp_path):
    uri, stop, told = str(tmp_path / "lease"), Event(), []

    def tell(holder):
        told.append(str(holder))
        stop.set()

    with (
        held(uri),
        pytest.raises(CancelledError, match="stopped while held by process"),
        held(uri, on_wait=tell, stop=stop),
    ):
        raise AssertionError("held by two")
    (text,) = told
    assert text.startswith("process ")
    assert text.endswith(" UTC")


def test_a_holder_that_was_killed_on_this_machine_is_followed_at_once(tmp_path):
    uri = str(tmp_path / "lease")
    script = f"""
from storage.leases import held
import os
with held({uri!r}):
    os._exit(1)
"""
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT)
    assert holder_of(uri) is not None
    with held(uri):
        pass
    assert holder_of(uri) is None


def test_a_silent_holder_on_another_machine_is_followed_when_its_lease_expires(
    tmp_path, monkeypatch
):
    uri, told = str(tmp_path / "lease"), []
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases, "owner", lambda: "another-host/7/42")
        leases._take(uri, lambda holder: None, Event())  # and never renewed
    monkeypatch.setattr(leases, "EXPIRES_S", 0.3)
    began = time.monotonic()
    with held(uri, on_wait=lambda holder: told.append(str(holder))):
        assert time.monotonic() - began >= 0.3
    assert told[0].startswith("process 42 on another-host, since ")


def test_a_holder_that_gives_signs_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "EXPIRES_S", 0.2)
    monkeypatch.setattr(leases, "RENEWED_S", 0.05)
    uri, stop = str(tmp_path / "lease"), Event()
    with held(uri), ThreadPoolExecutor(1) as threads:
        other = threads.submit(lambda: held(uri, stop=stop).__enter__())
        time.sleep(0.6)
        assert not other.done()
        stop.set()
        assert isinstance(other.exception(), CancelledError)
