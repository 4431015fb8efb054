"""An actor between a training and its workers. Its process imports nothing: letters are bytes."""

import asyncio
import time
from contextlib import suppress

SIGN_S = 5.0
"""Seconds after which a worker that listens shows again that it is there."""


class Mailbox:
    """Letters that the addressee has not fetched yet, in order, and the word to stop."""

    def __init__(self) -> None:
        self._letters: list[bytes] = []
        self._stop = asyncio.Event()
        self._heard = 0.0

    async def put(self, letter: bytes) -> None:
        """Add a letter."""
        self._letters.append(letter)

    async def take(self) -> tuple[list[bytes], float]:
        """Return the letters, which are then forgotten, and seconds since any worker listened."""
        letters, self._letters = self._letters, []
        return letters, self._silence()

    async def stop(self) -> bool:
        """Tell everyone who listens to stop; return whether anyone does."""
        self._stop.set()
        return self._silence() < 2 * SIGN_S

    async def listen(self) -> bool:
        """Return whether `stop` was called: at once when it was, else after SIGN_S seconds."""
        self._heard = time.monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), SIGN_S)
        return self._stop.is_set()

    def _silence(self) -> float:
        return time.monotonic() - self._heard
