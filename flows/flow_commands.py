"""Commands that run a flow: its own parameters and help, and `--json`."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, TypeVar

from prefect import Flow

JSON_HELP = "json: print one JSON object when all is done, and nothing else to stdout"

R = TypeVar("R")


def runs(flow: Flow[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command, a function of `json` and anything, the parameters and help of a flow."""

    def decorated(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(flow.fn)
        def run(*arguments: Any, **options: Any) -> R:  # noqa: ANN401 - the flow's own parameters
            return command(*arguments, **options)

        own = signature(flow.fn)
        json = Parameter("json", Parameter.KEYWORD_ONLY, default=False, annotation=bool)
        parameters = [*own.parameters.values(), json]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {**flow.fn.__annotations__, "json": bool}
        run.__doc__ = f"{(flow.fn.__doc__ or '').rstrip()}\n        {JSON_HELP}\n    "
        return run

    return decorated
