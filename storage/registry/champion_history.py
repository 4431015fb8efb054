"""Who was champion, in order: moves as tags of a registered model, and what they add up to.

MLflow cannot set an alias on a condition, so nobody who wants to move one can shut others out.
Instead every move is a tag of its own, which no other writer touches, and the champion is a pure
function of all moves, `replay`: writers at the same time come to the same champion.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from pydantic import TypeAdapter

from storage.registry.gate import CHALLENGER, CHAMPION, MARGIN_DB, Decision, GateScores, decide
from storage.registry.registered_version import RegisteredVersion, scores_of

MOVE_TAG = "champion.move."  # then the move's number and a random word
SILENCE_S = 60.0
ALREADY = "it is the champion already"
OUTSIDE = "someone outside qfactory"
WEIGHTS_TAG = "weights_sha256"


@dataclass(frozen=True, kw_only=True)
class Move:
    """One wish for another champion, as its writer saw things."""

    number: int
    """One more than the largest that its writer had seen; equal numbers are rivals."""
    kind: Literal["gate", "force", "rollback", "outside"]
    """`outside`: the alias was found moved by something that leaves no history, such as MLflow's
    pages."""
    version: int | None
    """Who is to be champion; None if the alias was taken away outside."""
    base: int | None
    """The champion that the writer saw."""
    by: str
    """The person or program."""
    reason: str
    when: datetime
    """UTC, by the writer's clock."""
    scores: GateScores | None = None
    """Of `version`."""
    margin_db: float = MARGIN_DB
    """The gate's."""
    withdraws: tuple[int, ...] = ()
    """Versions that a rollback takes out: the gate does not promote them again."""
    done: bool = False
    """Whether the writer saw the alias agree with all moves after its own."""
    word: str = field(default_factory=lambda: secrets.token_hex(4))
    """Keeps the tags of rivals apart."""

    @property
    def tag(self) -> str:
        """The tag's name, which sorts as the moves do."""
        return f"{MOVE_TAG}{self.number:06}.{self.word}"

    def to_json(self) -> str:
        """Return the tag's value."""
        kept = {name: value for name, value in asdict(self).items() if name != "word"}
        return json.dumps({**kept, "when": self.when.isoformat()})

    def is_settled(self, now: datetime) -> bool:
        """Tell whether its writer is through, or has been silent for more than a minute."""
        return self.done or (now - self.when).total_seconds() > SILENCE_S


MOVE = TypeAdapter(Move)


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """A move, and what came of it."""

    move: Move
    refused: str | None = None
    """Why the champion stayed although the move's writer saw none that was better."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What all moves of a model add up to."""

    line: tuple[int, ...] = ()
    """The champion at the end, before it the one that a rollback goes back to, and so on."""
    vacant: bool = False
    """Whether the alias was taken away outside; the last of the line was champion until then."""
    history: tuple[HistoryEntry, ...] = ()
    """Oldest first."""
    withdrawn: Mapping[int, Move] = field(default_factory=dict)
    """Version -> the rollback that took it out and still holds."""
    scores: Mapping[int, GateScores] = field(default_factory=dict)
    """Version -> the scores that it became champion with."""

    @property
    def champion(self) -> int | None:
        """The champion; None if there is none."""
        return self.line[-1] if self.line and not self.vacant else None

    @property
    def moves(self) -> int:
        """The largest number of a move."""
        return max((entry.move.number for entry in self.history), default=0)

    @property
    def champions(self) -> tuple[int, ...]:
        """Every version that was champion once, ascending."""
        taken = {e.move.version for e in self.history if e.refused is None}
        return tuple(sorted(version for version in taken if version is not None))


def moves_in(tags: Mapping[str, str]) -> list[Move]:
    """Read the moves from a registered model's tags."""
    return [
        replace(MOVE.validate_json(text), word=tag.rpartition(".")[2])
        for tag, text in tags.items()
        if tag.startswith(MOVE_TAG)
    ]


def replay(moves: Iterable[Move]) -> Standing:
    """Return what moves add up to, in whatever order they are given.

    They count by number. Among rivals those of the gate come first, in version order, then those
    of people, by time: a person's word stands. A move of the gate that was decided against another
    champion than the one it meets here is decided again, by the scores that it brings.
    """
    standing = Standing()
    for move in sorted(moves, key=_turn):
        standing = _after(standing, move)
    return standing


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def _turn(move: Move) -> tuple[int, bool, int, datetime, str]:
    by_gate = move.kind == "gate"
    order = move.version if by_gate and move.version is not None else 0
    return move.number, not by_gate, order, move.when, move.word


def _after(standing: Standing, move: Move) -> Standing:
    if (refused := _refusal(standing, move)) is not None:
        entry = HistoryEntry(move=move, refused=refused)
        return replace(standing, history=(*standing.history, entry))
    withdrawn = {v: m for v, m in standing.withdrawn.items() if v != move.version}
    withdrawn |= dict.fromkeys(move.withdraws, move)
    line = [version for version in _line_after(standing.line, move) if version not in withdrawn]
    scores = dict(standing.scores)
    if move.version is not None and move.scores is not None:
        scores[move.version] = move.scores
    return Standing(
        line=tuple(line),
        vacant=move.version is None,
        history=(*standing.history, HistoryEntry(move=move)),
        withdrawn=withdrawn,
        scores=scores,
    )


def _refusal(standing: Standing, move: Move) -> str | None:
    if move.kind == "rollback":
        return None
    if move.version is not None and move.version == standing.champion:
        return ALREADY
    if move.kind != "gate" or move.version is None or move.scores is None:
        return None
    if move.version in standing.withdrawn:
        return withdrawal(standing.withdrawn[move.version])
    if standing.champion in (move.base, None):
        return None
    met = standing.scores.get(standing.champion)
    if met is None:
        return f"version {standing.champion} became champion at the same time, without scores"
    decision = decide(move.scores, met, move.margin_db)
    return None if decision.alias == CHAMPION else decision.reason


def verdict(
    standing: Standing,
    known: Mapping[int, RegisteredVersion],
    version: int,
    scores: GateScores,
    jpeg: GateScores | None,
) -> Decision:
    """Return what the gate says of one of the `known` versions of a model that stands so."""
    if standing.champion == version:
        return Decision(alias=CHAMPION, reason=ALREADY)
    weights = known[version].tags.get(WEIGHTS_TAG)
    for number, rollback in standing.withdrawn.items():
        same = weights and number in known and known[number].tags.get(WEIGHTS_TAG) == weights
        if number == version or same:
            who = "" if number == version else f"the weights of version {number}, "
            return Decision(alias=CHALLENGER, reason=who + withdrawal(rollback))
    champion = standing.champion
    if champion is None:
        return decide(scores, None, jpeg=jpeg)
    held = scores_of(known.get(champion)) or standing.scores.get(champion)
    if held is None:
        name = known[version].name
        told = f"version {champion} is champion and has no scores: see `qfactory models compare "
        told += f"{name}/{champion} {name}/{version} --dataset {scores.dataset}`"
        return Decision(alias=CHALLENGER, reason=told)
    return decide(scores, held, jpeg=jpeg)


def withdrawal(rollback: Move) -> str:
    """Say why the gate passes over a version that this rollback took out."""
    day = rollback.when.isoformat(" ", "minutes").removesuffix("+00:00")
    return f"rolled back on {day} UTC by {rollback.by}: {rollback.reason}"


def _line_after(line: tuple[int, ...], move: Move) -> tuple[int, ...]:
    if move.version is None:
        return line
    if move.kind in ("rollback", "outside") and move.version in line:
        return line[: len(line) - line[::-1].index(move.version)]
    return (*(line[:-1] if move.kind == "rollback" else line), move.version)
