"""Commands that run a flow: its own parameters and help, `--json` and `--timings`."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar

from prefect import Flow

from flows.console import notes
from pipeline.timings import spent

OPTIONS = {
    "json": "print one JSON object when all is done, and nothing else to stdout",
    "timings": "say at the end, on stderr, where the time went",
}

R = TypeVar("R")


def runs(flow: Flow[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command, a function of `json` and anything, the parameters and help of a flow.

    And `timings`, which is served here.
    """

    def decorated(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(flow.fn)
        def run(*arguments: Any, timings: bool = False, **options: Any) -> R:  # noqa: ANN401 - the flow's own parameters
            try:
                return command(*arguments, **options)
            finally:
                if timings:
                    show_timings()

        own = signature(flow.fn)
        flags = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=bool)
            for name in OPTIONS
        ]
        parameters = [*own.parameters.values(), *flags]
        told = "\n".join(f"        {name}: {text}" for name, text in OPTIONS.items())
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {**flow.fn.__annotations__, **dict.fromkeys(OPTIONS, bool)}
        run.__doc__ = f"{(flow.fn.__doc__ or '').rstrip()}\n{told}\n    "
        return run

    return decorated


def show_timings() -> None:
    """Print where the time of this command went, and its sum, as a table on stderr."""
    rows = spent()
    whole = max(sum(rows.values()), 1e-9)
    notes.print("\nwhere the time went")
    for what, seconds in sorted(rows.items(), key=lambda row: -row[1]):
        notes.print(f"{seconds:8.1f} s {100 * seconds / whole:4.0f} %  {what}", markup=False)
    notes.print(f"{whole:8.1f} s         in all", markup=False)
