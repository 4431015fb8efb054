"""An actor between a training and its workers. Its process imports nothing: letters are bytes."""

import asyncio


class Mailbox:
    """Letters that the addressee has not fetched yet, in order, and the word to stop."""

    def __init__(self) -> None:
        self._letters: list[bytes] = []
        self._stop = asyncio.Event()
        self._listeners = 0

    async def put(self, letter: bytes) -> None:
        """Add a letter."""
        self._letters.append(letter)

    async def take(self) -> list[bytes]:
        """Return the letters, and forget them."""
        letters, self._letters = self._letters, []
        return letters

    async def stop(self) -> int:
        """Tell everyone who waits for it to stop; return how many they are."""
        self._stop.set()
        return self._listeners

    async def wait_for_stop(self) -> None:
        """Return once `stop` was called."""
        self._listeners += 1
        await self._stop.wait()
