"""Ray's cluster and its nodes, each asked by a small task that is pinned to it."""

import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import cluster
from pipeline.health import node_probe
from pipeline.health.findings import Check, Problem
from pipeline.health.judgement import Asked, check_node
from pipeline.health.node_probe import in_background
from storage import files
from storage.shown import reason_of

ANSWER_S = 6.0
NODES_S = 25.0
"""Seconds that all nodes together have to answer."""


def check_cluster(
    address: str, token: str, roots: Mapping[str, str], here: Mapping[str, Any]
) -> list[Check]:
    """Join the cluster and ask each of its nodes; `here` is what this machine says of itself.

    `roots` (name -> URI) are the places that all nodes must be able to write to. `token` says
    whether one is given to the cluster.
    """
    start, is_guest = time.monotonic(), cluster.is_connected()
    try:
        _join(address)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        ms = 1000 * (time.monotonic() - start)
        with _marked(roots) as mark:
            asked = _ask(nodes, roots, mark)
    except (OSError, RayError) as error:
        return [Check(name="Ray", where=address, problems=(_explained(address, error),))]
    finally:
        if not is_guest:
            cluster.disconnect()
    facts = {"version": ray.__version__, "joined in ms": ms, "token": token}
    return [
        _check_size(address, nodes, facts),
        *(check_node(one, roots, here) for one in asked),
    ]


def _join(address: str) -> None:
    """Join the cluster. Raises OSError or RayError within seconds, where Ray would try for long.

    It is asked as `ray health-check` does before, since what `ray.init` raises tells no reason.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), ANSWER_S).close()
    if address == f"{host}:{port}":
        ensure_token_if_auth_enabled(create_token_if_missing=False)  # without, the next one aborts
        in_background(partial(GcsClient, address=address)).result(ANSWER_S)
    cluster.connect(address)


def _explained(address: str, error: Exception) -> Problem:
    if isinstance(error, AuthenticationError):
        return Problem(
            what=f"no access: {str(error).strip().partition('. ')[0]}",
            mend="export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE  # with the cluster's token",
        )
    host, _, port = address.rpartition("://")[2].rpartition(":")
    said = reason_of(error.__cause__ or error)
    if said.startswith("Version mismatch"):
        again = f"pip install 'ray[data,train]=={ray.__version__}'  # on every node"
        return Problem(what=said, mend=f"{again}, under this machine's Python")
    return Problem(
        what=f"no cluster answers there: {said}",
        mend=f"ray start --head --port {port}  # on {host}",
    )


def _check_size(address: str, nodes: Sequence[Mapping[str, Any]], facts: dict[str, Any]) -> Check:
    cpus, gpus = (
        int(sum(node["Resources"].get(unit, 0) for node in nodes)) for unit in ("CPU", "GPU")
    )
    problems = []
    if cpus == 0:
        what = f"its {len(nodes)} nodes have no CPU to give: every task waits"
        problems.append(Problem(what=what, mend="ray start --address=HEAD:PORT  # on a machine"))
    return Check(
        name="Ray",
        where=address,
        facts={**facts, "nodes": len(nodes), "CPU": cpus, "GPU": gpus},
        problems=tuple(problems),
    )


@contextmanager
def _marked(roots: Mapping[str, str]) -> Iterator[str]:
    """Put a file into each root, by which nodes see whether it is the same place as here."""
    mark = f"{files.TEMPORARY}doctor-{uuid.uuid4().hex}"
    try:
        for root in roots.values():
            files.write_bytes(files.join(root, mark), b"")
        yield mark
    finally:
        for root in roots.values():
            with suppress(Exception):  # another look at the place that was just written to
                files.delete(files.join(root, mark))


def _ask(nodes: Sequence[Mapping[str, Any]], roots: Mapping[str, str], mark: str) -> list[Asked]:
    cloudpickle.register_pickle_by_value(node_probe)
    sent, waiting = {}, {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(node_probe.probe).options(
            num_cpus=0, max_retries=0, scheduling_strategy=there
        )
        sent[node["NodeID"]] = time.time()
        waiting[task.remote(dict(roots), mark)] = node
    until = time.monotonic() + NODES_S
    asked = []
    while waiting and (left := until - time.monotonic()) > 0:
        for reference in ray.wait(list(waiting), timeout=left)[0]:
            node, received = waiting.pop(reference), time.time()
            asked.append(
                Asked(
                    node=node,
                    sent=sent[node["NodeID"]],
                    received=received,
                    answer=_answer(reference),
                )
            )
    for reference, node in waiting.items():
        ray.cancel(reference, force=True)
        silent = f"does not answer within {NODES_S:.0f} s"
        asked.append(Asked(node=node, sent=0, received=0, answer=silent))
    return sorted(asked, key=lambda one: one.node["NodeManagerHostname"])


def _answer(reference: ray.ObjectRef) -> Mapping[str, Any] | str:
    try:
        return ray.get(reference)
    except RayError as error:
        return f"does not run a small task: {str(error).strip().splitlines()[-1]}"
