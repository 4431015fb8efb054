"""What people are shown of addresses and errors: no passwords, one line."""

import re
from collections.abc import Iterator

USERINFO = re.compile(r"(?<=://)[^/\s]*@")
LENGTH = 300


def shown_uri(text: str) -> str:
    """Return a URI, or a message with URIs in it, without user names and passwords."""
    return USERINFO.sub("", text)


def reason_of(error: BaseException) -> str:
    """Return why something failed, in one line.

    That is what the operating system said to the innermost of the errors that led to this one,
    else what this one says.
    """
    for one in reversed([*_chain(error)]):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
        if type(one) is TimeoutError:
            return "no answer in time"
    return shown_uri(" ".join(str(error).split()))[:LENGTH] or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
