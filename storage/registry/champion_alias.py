"""The alias `champion` of registered models, moved by any number of processes at the same time."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from storage.registry.champion_history import OUTSIDE, Move, Standing, moves_in, now, replay
from storage.registry.gate import CHAMPION
from storage.registry.registered_version import RegistryError

ROUNDS = 50
INSIST_S = 20.0
PAUSE_S = 0.05
FINAL = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # asking again changes nothing

T = TypeVar("T")


class ChampionAlias:
    """Reads and moves the alias.

    A writer writes its move first (champion_history.py), then sets the alias to what all moves add
    up to, and looks again until both agree. Whoever sets the alias last looks after that, and
    whoever writes the last move looks after that too, so the alias ends where the moves do, in
    whatever order they were written. A process that is killed in between leaves a move that the
    next writer completes; after a minute without a next writer, the alias as it stands counts. An
    alias that was moved outside, such as on MLflow's pages, is respected and becomes a move.
    """

    def __init__(self, client: MlflowClient) -> None:
        """Take the registry's client."""
        self._client = client

    def look(self, name: str) -> Standing:
        """Return where a model stands; writes a move if the alias was moved outside."""
        standing, champion, settled = self._read(name)
        if settled and champion != standing.champion:
            before = standing.moves
            standing, champion, settled = self._read(name)  # after the alias: no move is missed
            if settled and champion != standing.champion and before == standing.moves:
                self._write(name, _outside(standing, champion))
                standing, _, _ = self._read(name)
        return standing

    def settle(self, name: str, move: Move) -> Standing:
        """Write a move and see to it that the alias is where all moves together say."""
        self._write(name, move)
        for _ in range(ROUNDS):
            standing, champion, _ = self._read(name)
            if champion == standing.champion:
                self._write(name, replace(move, done=True))
                return standing
            self._set(name, standing.champion)
        raise RegistryError(
            f"{name}: others moved the champion {ROUNDS} times meanwhile; do it again"
        )

    def standing(self, name: str) -> Standing:
        """Return what the moves add up to; writes nothing and does not look at the alias."""
        return replay(moves_in(self._model(name).tags))

    def _read(self, name: str) -> tuple[Standing, int | None, bool]:
        """Return what the moves add up to, who has the alias, and whether all moves are settled."""
        model = self._model(name)
        moves = moves_in(model.tags)
        holder = model.aliases.get(CHAMPION)
        settled = all(move.is_settled(now()) for move in moves)
        return replay(moves), None if holder is None else int(holder), settled

    def _model(self, name: str) -> RegisteredModel:
        return insist(lambda: self._client.get_registered_model(name))

    def _write(self, name: str, move: Move) -> None:
        insist(lambda: self._client.set_registered_model_tag(name, move.tag, move.to_json()))

    def _set(self, name: str, version: int | None) -> None:
        if version is None:
            insist(lambda: self._client.delete_registered_model_alias(name, CHAMPION))
        else:
            insist(lambda: self._client.set_registered_model_alias(name, CHAMPION, str(version)))


def insist(call: Callable[[], T]) -> T:
    """Call, again where another writer was in the way: the same row, or a locked database."""
    until = time.monotonic() + INSIST_S
    pause = PAUSE_S
    while True:
        try:
            return call()
        except MlflowException as error:
            if error.error_code in FINAL or time.monotonic() + pause > until:
                raise
        time.sleep(random.uniform(0.5, 1) * pause)
        pause *= 2


def _outside(standing: Standing, champion: int | None) -> Move:
    said = "the alias was set" if champion is not None else "the alias was taken away"
    return Move(
        number=standing.moves + 1,
        kind="outside",
        version=champion,
        base=standing.champion,
        by=OUTSIDE,
        reason=f"{said} outside qfactory" if standing.moves else "champion before this history",
        when=now(),
        done=True,
    )
