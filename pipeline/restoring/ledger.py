"""An actor that knows what a batch restore has begun and finished. Its process imports nothing."""

from collections import Counter


class Ledger:
    """What a run has begun and finished, for the actors that do it."""

    def __init__(self) -> None:
        self._attempts: Counter[str] = Counter()
        self._states: dict[str, str] = {}

    def begin(self, name: str) -> tuple[int, str]:
        """Return which attempt at a photograph this is, from 1, and its state if it is finished."""
        state = self._states.get(name, "")
        self._attempts[name] += not state
        return self._attempts[name], state

    def finish(self, states: dict[str, str]) -> None:
        """Note states of photographs that a part of the manifest tells of."""
        self._states.update(states)
