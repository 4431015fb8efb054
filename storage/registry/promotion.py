"""Who becomes champion: by the gate, by a person's word, or by a rollback; tags tell why."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

from mlflow import MlflowClient

from storage.registry.champion_alias import ChampionAlias, insist
from storage.registry.champion_history import (
    ALREADY,
    HistoryEntry,
    Move,
    Standing,
    now,
    verdict,
    withdrawal,
)
from storage.registry.gate import CHALLENGER, CHAMPION, GATE_TAG, Decision, GateScores, gate_tags
from storage.registry.registered_version import (
    RegisteredVersion,
    RegistryError,
    VersionsOf,
    scores_of,
)

BY_GATE = "the gate"
REASON_LENGTH = 1000  # MLflow's databases hold 5000 characters in a tag

Known = Mapping[int, RegisteredVersion]


class Promotions:
    """Promotes and rolls back versions; a part of ModelRegistry, which explains the errors."""

    def __init__(
        self,
        client: MlflowClient,
        versions: VersionsOf,
        explained: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        """Take a registry's client, its versions, and how it explains MLflow's errors."""
        self._client = client
        self._versions = versions
        self._explained = explained
        self._champion = ChampionAlias(client)

    def promote(
        self,
        name: str,
        version: int,
        scores: GateScores,
        *,
        jpeg: GateScores | None = None,
        by: str = BY_GATE,
    ) -> Decision:
        """Record a version's scores and give it the alias that the gate says, with the reason.

        `jpeg` is what a version has to beat where there is no champion; one without scores is not
        to be beaten. A version that was rolled back, or has the very weights of one, stays a
        challenger: only `force` brings it back.
        """
        with self._explained(f"{name} version {version} not promoted"):
            standing, known = self._look(name, version)
            decision = verdict(standing, known, version, scores, jpeg)
            tags = gate_tags(scores, decision, jpeg)
            if decision.reason == ALREADY and GATE_TAG + "reason" in known[version].tags:
                del tags[GATE_TAG + "reason"]  # why it became champion is worth more
            self._note(name, version, tags)
            if decision.alias == CHAMPION and standing.champion != version:
                move = _move("gate", standing, known[version], by, decision.reason)
                move = replace(move, scores=scores)
                after = self._champion.settle(name, move)
                if after.champion != version:
                    decision = _overtaken(after, move)
                    self._note(name, version, gate_tags(scores, decision, jpeg))
            self._set_challenger(name, version, decision.alias, known)
        return decision

    def force(self, name: str, version: int, *, by: str, reason: str) -> Decision:
        """Make a version champion because a person says so; tags tell who, when and why.

        Raises ValueError for an empty or too long reason.
        """
        reason = _checked(reason)
        with self._explained(f"{name} version {version} not promoted"):
            standing, known = self._look(name, version)
            if standing.champion == version:
                return Decision(alias=CHAMPION, reason=ALREADY)
            move = _move("force", standing, known[version], by, reason)
            after = self._champion.settle(name, move)
            decision = Decision(alias=CHAMPION, reason=f"forced by {by}: {reason}")
            if after.champion != version:
                decision = _overtaken(after, move)
            self._note(name, version, {GATE_TAG + "forced": _told(move)})
            self._note(name, version, _said(decision.alias, decision.reason))
            self._forget_rollback(known[version])
            self._set_challenger(name, version, decision.alias, known)
        return decision

    def rollback(self, name: str, *, by: str, reason: str, to: int | None = None) -> Move:
        """Give the alias back to the champion before, or to an earlier one; return the move.

        Every champion after it is withdrawn: it carries who, when and why, and the gate does not
        promote it again. Whoever is promoted right after the rollback is champion all the same.
        Raises RegistryError if there is no earlier champion, or if `to` never was one, with those
        that were; ValueError for an empty or too long reason.
        """
        reason = _checked(reason)
        with self._explained(f"{name} not rolled back"):
            standing, known = self._look(name)
            target = _target(name, standing, known, to)
            move = _move("rollback", standing, known[target], by, reason)
            move = replace(move, withdraws=_after(standing, target))
            after = self._champion.settle(name, move)
            for version in set(move.withdraws) & known.keys():
                self._note(name, version, {GATE_TAG + "rolled_back": _told(move)})
                self._note(name, version, _said("rolled back", withdrawal(move)))
            self._forget_rollback(known[target])
            if after.champion == target:
                told = f"rolled back to, from version {move.base}, by {by}: {reason}"
                self._note(name, target, _said(CHAMPION, told))
                self._set_challenger(name, target, CHAMPION, known)
        return move

    def history(self, name: str) -> tuple[HistoryEntry, ...]:
        """Return who was made champion when, by whom and why, oldest first; writes nothing.

        Moves that were overtaken at the same moment are among them, with the reason.
        """
        with self._explained(f"{name}: history not read"):
            told = self._champion.standing(name).history
        return tuple(e for e in told if not (e.move.kind == "outside" and e.refused))

    def _look(self, name: str, version: int | None = None) -> tuple[Standing, Known]:
        """Return where a model stands and its versions; RegistryError if `version` is not there."""
        known = {found.version: found for found in self._versions(name)}
        if not known:
            raise RegistryError(f"{name}: no version is registered under this name")
        if version is not None and version not in known:
            raise RegistryError(f"{name} has no version {version}; there are {sorted(known)}")
        standing = self._champion.look(name)
        if standing.champion is not None and standing.champion not in known:
            known = {found.version: found for found in self._versions(name)}
        return standing, known

    def _set_challenger(
        self, name: str, version: int, alias: Literal["champion", "challenger"], known: Known
    ) -> None:
        """Give the alias `challenger`, or take it from a version that is the champion now.

        MLflow takes an alias away by its name, whoever holds it: a version that became challenger
        meanwhile, that is, since `known` was read, gets it back.
        """
        if alias == CHALLENGER:
            insist(lambda: self._client.set_registered_model_alias(name, CHALLENGER, str(version)))
            return
        aliases = self._client.get_registered_model(name).aliases
        if str(aliases.get(CHALLENGER)) == str(version):
            insist(lambda: self._client.delete_registered_model_alias(name, CHALLENGER))
            before = _challengers(known.values())
            late = _challengers(self._versions(name)) - before - {version}
            if late:
                self._set_challenger(name, max(late), CHALLENGER, known)

    def _note(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        for tag in tags.items():
            insist(lambda tag=tag: self._client.set_model_version_tag(name, str(version), *tag))

    def _forget_rollback(self, version: RegisteredVersion) -> None:
        if (tag := GATE_TAG + "rolled_back") in version.tags:
            number = str(version.version)
            insist(lambda: self._client.delete_model_version_tag(version.name, number, tag))


def _challengers(versions: Iterable[RegisteredVersion]) -> set[int]:
    """Return the versions that were last said to be challengers."""
    return {v.version for v in versions if v.tags.get(GATE_TAG + "decision") == CHALLENGER}


def _move(
    kind: Literal["gate", "force", "rollback"],
    standing: Standing,
    version: RegisteredVersion,
    by: str,
    reason: str,
) -> Move:
    return Move(
        number=standing.moves + 1,
        kind=kind,
        version=version.version,
        base=standing.champion,
        by=by,
        reason=reason,
        when=now(),
        scores=scores_of(version),
    )


def _overtaken(after: Standing, move: Move) -> Decision:
    """Say why a move did not make its version champion."""
    (own,) = (entry for entry in after.history if entry.move.tag == move.tag)
    last = [entry.move for entry in after.history if entry.move.version == after.champion][-1]
    reason = f"version {last.version} became champion at the same moment: {last.reason}"
    return Decision(alias=CHALLENGER, reason=own.refused or reason)


def _target(name: str, standing: Standing, known: Known, to: int | None) -> int:
    earlier = standing.line if standing.vacant else standing.line[:-1]
    kept = [version for version in earlier if version in known]
    were = [v for v in standing.champions if v in known and v != standing.champion]
    if to is not None and to not in were:
        raise RegistryError(
            f"{name}: version {to} is not an earlier champion; there are {were}. "
            "`qfactory models promote` makes any version champion"
        )
    if to is None and not kept:
        raise RegistryError(
            f"{name}: there is no champion before version {standing.champion}; roll back to one "
            f"of {were} with --to, or `qfactory models promote --force` another version"
        )
    return kept[-1] if to is None else to


def _after(standing: Standing, target: int) -> tuple[int, ...]:
    """Return the champions after a target in the line; the last one alone if it is not in it."""
    line = standing.line
    start = len(line) - line[::-1].index(target) if target in line else len(line) - 1
    return tuple(sorted(set(line[start:]) - {target}))


def _checked(reason: str) -> str:
    if not 0 < len(reason.strip()) <= REASON_LENGTH:
        raise ValueError(f"reason of {len(reason)} characters: give 1 to {REASON_LENGTH}")
    return reason.strip()


def _told(move: Move) -> str:
    return f"{move.when.isoformat(timespec='seconds')} by {move.by}: {move.reason}"


def _said(decision: str, reason: str) -> dict[str, str]:
    return {GATE_TAG + "reason": reason, GATE_TAG + "decision": decision}
