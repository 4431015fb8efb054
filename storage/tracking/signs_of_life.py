"""A tag of a run with the last sign of its process, by which other machines see it end."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread

from mlflow import MlflowClient

SIGN_TAG = "qfactory.sign"
"""The run's tag with the last sign, seconds since 1970 by the clock of its machine."""
RENEWED_S = 60.0
EXPIRES_S = 300.0
"""Seconds without a sign after which nobody works on a run; more than clocks may differ."""


def sign() -> dict[str, str]:
    """Return the tag as of now."""
    return {SIGN_TAG: f"{time.time():.0f}"}


def is_silent(tags: Mapping[str, str]) -> bool:
    """Tell whether the last sign is too old; runs without any are not judged."""
    return SIGN_TAG in tags and time.time() - float(tags[SIGN_TAG]) > EXPIRES_S


@contextmanager
def giving_signs(client: MlflowClient, run_id: Callable[[], str | None]) -> Iterator[None]:
    """Renew the tag of a run during the block, from the background; a lost server is no matter."""
    ended = Event()

    def renew() -> None:
        while not ended.wait(RENEWED_S):
            with suppress(Exception):
                if (recorded := run_id()) is not None:
                    client.set_tag(recorded, SIGN_TAG, sign()[SIGN_TAG])

    Thread(target=renew, name="signs of life", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
