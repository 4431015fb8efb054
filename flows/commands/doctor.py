"""The command that asks servers, nodes and places to write whether they are fit for work."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.markup import escape

from flows.console import out, print_json, show_table
from flows.settings import settings
from pipeline.health.findings import ERROR, WARNING, Check, Problem
from pipeline.health.judgement import check_here
from pipeline.health.node_probe import in_background, probe
from pipeline.health.places import check_places
from pipeline.health.stale_leases import check_leases
from pipeline.health.stores import check_stores
from storage.shown import reason_of, shown_uri

SERVER_S = 15.0
CLUSTER_S = 45.0
"""Seconds that a server, and a cluster with its nodes, have to answer."""
UNITS = {"GB": 1, "ms": 0, "s": 1}
"""Unit -> digits behind the point."""
COLOURS = {WARNING: "yellow", ERROR: "red"}

Ask = Callable[[], list[Check]]


def doctor(*, mend: bool = False, json: bool = False) -> None:
    """Ask servers, Ray's nodes and places to write whether they are fit for work.

    Every problem is told with the command that mends it. Exit code 1 if one stops work, 0 with
    warnings alone. What is embedded is not started.

    Args:
        mend: end runs, in MLflow and Prefect, and leases whose process on this machine is gone, and
            runs in MLflow and leases of other machines that give no sign
        json: print one JSON object and nothing else
    """
    start = time.monotonic()
    checks = list(_checks(mend=mend))
    seconds = time.monotonic() - start
    if json:
        told = [{"state": check.state, **asdict(check)} for check in checks]
        print_json({"fit": _is_fit(checks), "seconds": round(seconds, 1), "checks": told})
    else:
        _show(checks, seconds)
    sys.exit(0 if _is_fit(checks) else 1)


def _is_fit(checks: Sequence[Check]) -> bool:
    return all(check.state != ERROR for check in checks)


def _checks(*, mend: bool) -> Iterator[Check]:
    """Yield all checks. Servers are asked side by side, and each has its time to answer."""
    known = settings()
    shared = {"stores": known.stores_root, "checkpoints": known.checkpoints_root}
    roots = shared | ({"artifacts": known.artifact_root} if known.artifact_root else {})
    ask_prefect, ask_mlflow, ask_ray = _prefect(mend=mend), _mlflow(mend=mend), _ray()
    prefect, tracking = in_background(ask_prefect), in_background(ask_mlflow)
    here = probe(roots, None)
    left = in_background(lambda: [check_stores(known.stores_root), _leases(mend=mend)])
    writable = {name: root for name, root in shared.items() if not here["roots"][name]}
    ray = in_background(partial(ask_ray, writable, here))
    url, uri, address = str(known.prefect_api_url), known.mlflow_uri, str(known.ray_address)
    yield from _answered("Prefect", url, prefect, SERVER_S, f"curl -v {shown_uri(url)}/health")
    yield from _answered("MLflow", uri, tracking, SERVER_S, f"curl -v {shown_uri(uri)}/health")
    yield from _answered("Ray", address, ray, CLUSTER_S, f"ray status --address={address}")
    yield check_here(here)
    yield from check_places(roots, here["roots"])
    yield from _answered("builds", known.stores_root, left, SERVER_S, "qfactory patches list")


def _leases(*, mend: bool) -> Check:
    return check_leases(settings().stores_root, settings().checkpoints_root, mend=mend)


def _prefect(*, mend: bool) -> Ask:
    url = settings().prefect_api_url
    if not url:
        return lambda: [_embedded("Prefect", "starts with a command")]
    from flows.cli.prefect_check import check_prefect  # takes a second, only where there is one

    return lambda: [check_prefect(url, mend=mend)]


def _mlflow(*, mend: bool) -> Ask:
    if not settings().has_mlflow:
        return lambda: [_embedded("MLflow", "begins with the first run")]
    from pipeline.health.tracking import check_tracking  # takes seconds, only where there is one

    return lambda: [check_tracking(settings().mlflow_uri, mend=mend)]


def _ray() -> Callable[[Mapping[str, str], Mapping[str, Any]], list[Check]]:
    address = settings().ray_address
    if not address:
        return lambda roots, here: [_embedded("Ray", "starts with a command")]
    from pipeline.health.nodes import check_cluster  # takes a second, only where there is one

    token = "accepted" if settings().ray_auth_mode == "token" else "none"
    return partial(check_cluster, address, token)


def _embedded(name: str, told: str) -> Check:
    return Check(name=name, where="embedded", facts={"it": told})


def _answered(
    name: str, where: str, answer: "Future[list[Check]]", seconds: float, look: str
) -> list[Check]:
    """Return what was answered; no answer in time, and an unexpected error, are problems too.

    `look` is a command that shows more of them.
    """
    try:
        return answer.result(seconds)
    except TimeoutError:
        what = f"does not answer within {seconds:.0f} s"
    except Exception as error:
        what = f"cannot be asked: {reason_of(error)}"
    return [Check(name=name, where=shown_uri(where), problems=(Problem(what=what, mend=look),))]


def _show(checks: Sequence[Check], seconds: float) -> None:
    """Print a line a check, and below them each problem with what mends it."""
    show_table(
        [{"state": check.state, "check": check.name, "what": _told(check)} for check in checks]
    )
    found = [(check, problem) for check in checks for problem in check.problems]
    for check, problem in sorted(found, key=lambda one: not one[1].stops_work):
        state = ERROR if problem.stops_work else WARNING
        out.print(f"\n[{COLOURS[state]}]{state}[/] {escape(f'{check.name}: {problem.what}')}")
        out.print(f"  {problem.mend}", markup=False)
    errors = sum(problem.stops_work for _, problem in found)
    out.print(f"\nerrors {errors}, warnings {len(found) - errors}, {seconds:.1f} s")


def _told(check: Check) -> str:
    told = [check.where]
    for name, value in check.facts.items():
        *words, last = name.split(" ")
        if last in UNITS:
            told.append(f"{' '.join(words)} {value:.{UNITS[last]}f} {last}")
        else:
            told.append(f"{name} {value}")
    return ", ".join(told)
