"""What a machine answered, judged: alone, and beside the machine that asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.health.findings import Check, Problem
from pipeline.health.places import place_problems

REFUSED = ("torch", "ray", "pillow", "jpeg", "code")
"""What changes pixels or weights: a difference stops work."""
NOTED = ("numpy", "pyarrow")
CLOCK_S = 10.0
"""Clocks may be so far apart: `--for 9m` ends at a time of the clock."""
LEAST_FREE = 1e9
"""Bytes."""
LEAST_SHARE = 0.05
"""Of a disk that is free: with less, Ray moves no more objects from memory to it."""
INSTALL = "pip install -c infra/constraints.txt ."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A node, and what it answered."""

    node: Mapping[str, Any]
    """As Ray describes it."""
    sent: float
    received: float
    """By the asker's clock, seconds since 1970."""
    answer: Mapping[str, Any] | str
    """Of `node_probe.probe`, or why there is none."""


def check_here(here: Mapping[str, Any]) -> Check:
    """Judge what this machine says of itself."""
    return Check(
        name="this machine",
        where=here["host"],
        facts={"free GB": _free_gb(here), **here["versions"]},
        problems=tuple(_disk_problems(here)),
    )


def check_node(asked: Asked, roots: Mapping[str, str], here: Mapping[str, Any]) -> Check:
    """Judge what a node says of itself, and of `roots` (name -> URI), beside this machine."""
    host, told = asked.node["NodeManagerHostname"], asked.answer
    facts: dict[str, str | float] = {
        unit: int(asked.node["Resources"].get(unit, 0)) for unit in ("CPU", "GPU")
    }
    if isinstance(told, str):
        mend = f"ray stop && ray start --address=HEAD:PORT{_on(host)}"
        problems = [Problem(what=told, mend=mend)]
    else:
        theirs, ours = told["versions"], here["versions"]
        differing = {name: theirs.get(name, "none") for name in _differing(theirs, ours)}
        facts |= {"free GB": _free_gb(told), "clock s": round(clock_offset(asked), 1)}
        facts |= differing or {"versions": "as here"}
        problems = [
            *_version_problems(theirs, ours, host),
            *_clock_problems(asked, host),
            *_disk_problems(told, host),
            *(place_problems(roots, told["roots"], _on(host)) if "code" in theirs else ()),
        ]
    return Check(
        name=f"node {host}",
        where=asked.node["NodeManagerAddress"],
        facts=facts,
        problems=tuple(problems),
    )


def clock_offset(asked: Asked) -> float:
    """Return how many seconds a node's clock is ahead of this one at least; behind is negative.

    Its answer began and ended between the times at which it was asked for and came.
    """
    assert not isinstance(asked.answer, str)
    ahead, behind = asked.answer["ended"] - asked.received, asked.sent - asked.answer["began"]
    return max(ahead, 0.0) - max(behind, 0.0)


def _differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    return [name for name in (*REFUSED, *NOTED) if theirs.get(name) != ours.get(name)]


def _version_problems(
    theirs: Mapping[str, str], ours: Mapping[str, str], host: str
) -> Iterator[Problem]:
    if "code" not in theirs:
        yield Problem(what="qfactory is not installed there", mend=f"{INSTALL}{_on(host)}")
    for name in _differing(theirs, ours):
        if name != "code" or name in theirs:
            what = f"{name} is {theirs.get(name, 'not installed')} there, {ours.get(name)} here"
            mend = f"{_install(name, ours)}{_on(host)}"
            yield Problem(what=what, mend=mend, stops_work=name in REFUSED)


def _install(name: str, ours: Mapping[str, str]) -> str:
    if name == "code":
        return INSTALL
    if name == "jpeg":
        return f"pip install --force-reinstall pillow=={ours['pillow']}"
    if name == "ray":
        return f"pip install 'ray[data,train]=={ours[name]}'"
    return f"pip install {name}=={ours[name]}"


def _clock_problems(asked: Asked, host: str) -> Iterator[Problem]:
    offset = clock_offset(asked)
    if abs(offset) > CLOCK_S:
        what = f"its clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this one"
        yield Problem(what=what, mend=f"sudo timedatectl set-ntp true{_on(host)}")


def _disk_problems(told: Mapping[str, Any], host: str = "") -> Iterator[Problem]:
    for folder, (free, total) in told["disks"].items():
        if free < max(LEAST_FREE, LEAST_SHARE * total):
            yield Problem(
                what=f"{free / 1e9:.1f} of {total / 1e9:.0f} GB are free below {folder}",
                mend=f"du -xh {folder} | sort -h | tail{_on(host)}",
                stops_work=free < LEAST_FREE,
            )


def _free_gb(told: Mapping[str, Any]) -> float:
    return round(min(free for free, _ in told["disks"].values()) / 1e9, 1)


def _on(host: str) -> str:
    return f"  # on {host}" if host else ""
