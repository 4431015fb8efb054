"""What people are shown of addresses and errors: no passwords, one line."""

import re
from collections.abc import Iterator

USERINFO = re.compile(r"(?<=://)[^/\s]*@")


def shown_uri(text: str) -> str:
    """Return a URI, or a message with URIs in it, without user names and passwords."""
    return USERINFO.sub("", text)


def reason_of(error: BaseException) -> str:
    """Return why something failed, in one line.

    That is what the operating system said to the innermost of the errors that led to this one,
    else the first line of this one.
    """
    said = [e.strerror for e in _chain(error) if isinstance(e, OSError) and e.strerror]
    lines = [*reversed(said), *str(error).strip().splitlines(), type(error).__name__]
    return shown_uri(str(lines[0]))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
