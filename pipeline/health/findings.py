"""What a check finds: facts, and problems, each with the command that mends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OK, WARNING, ERROR = "ok", "warning", "error"
SHOWN_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong somewhere."""

    what: str
    mend: str
    """A command; its comment names the machine to run it on, if that is another one."""
    stops_work: bool = True


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found out about a server, a machine, or a place."""

    name: str
    where: str = ""
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """Name -> value; the last word of a number's name may be its unit, as in `free GB`."""
    problems: tuple[Problem, ...] = ()

    @property
    def state(self) -> str:
        """`error` if a problem stops work, `warning` if there is another, else `ok`."""
        if any(problem.stops_work for problem in self.problems):
            return ERROR
        return WARNING if self.problems else OK


def left_running(ids: Sequence[object], *, mended: bool) -> tuple[Problem, ...]:
    """Return the problem of runs whose process is gone, unless there is none or they are ended."""
    if not ids or mended:
        return ()
    what = f"{len(ids)} running whose process is gone: {', '.join(map(str, ids[:SHOWN_RUNS]))}"
    more = f" and {len(ids) - SHOWN_RUNS} more" if len(ids) > SHOWN_RUNS else ""
    return (Problem(what=what + more, mend="qfactory doctor --mend", stops_work=False),)
