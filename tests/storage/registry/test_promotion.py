"""Who becomes champion: by the gate, by force, by rollback, and by all of them at once."""

import random
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from mlflow import MlflowClient

from storage.registry.champion_history import Move, moves_in, now, replay
from storage.registry.gate import GateScores
from storage.registry.model_registry import ModelRegistry, RegistryError
from storage.tracking.mlflow_client import open_client
from tests.support.forks import FORKS
from tests.support.mlflow_servers import new_database, running_server
from tests.support.processes import free_port

SCORES = GateScores(dataset="classic5", qfs=(10,), psnr=28.0, ssim=0.80, psnr_b=27.5)
JPEG = replace(SCORES, psnr=27.8, ssim=0.78, psnr_b=25.2)
NOWHERE = "s3://nowhere/model"


def gained(decibels: float) -> GateScores:
    """Return scores that are better in PSNR alone."""
    return replace(SCORES, psnr=SCORES.psnr + decibels)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> ModelRegistry:
    return ModelRegistry(new_database(tmp_path_factory.mktemp("promotion")))


def a_model(registry: ModelRegistry, name: str, versions: int, **tags: str) -> MlflowClient:
    """Make versions without files: the alias rules never look at them."""
    client = open_client(registry.uri)
    client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, NOWHERE, tags=tags)
    return client


def champion_of(registry: ModelRegistry, name: str) -> int | None:
    found = registry.champion(name)
    return None if found is None else found.version


def line_of(registry: ModelRegistry, name: str) -> list[tuple[str, int | None]]:
    """Return how and which versions became champion, oldest first."""
    history = registry.promotions.history(name)
    return [(entry.move.kind, entry.move.version) for entry in history if entry.refused is None]


def a_move(number: int, version: int, **changes) -> Move:
    plain = Move(
        number=number, kind="gate", version=version, base=None, by="x", reason="r", when=now()
    )
    return replace(plain, **changes)


MOVES: dict[str, tuple[list[Move], int | None, list[int]]] = {
    "one after the other": (
        [a_move(1, 1), a_move(2, 2, base=1, scores=gained(1))],
        2,
        [1, 2],
    ),
    "rivals meet the gate in version order": (
        [
            a_move(1, 1, scores=SCORES),
            a_move(2, 2, base=1, scores=gained(0.9)),
            a_move(2, 3, base=1, scores=gained(0.5)),
        ],
        2,
        [1, 2],
    ),
    "a person's word stands against rivals of the gate": (
        [
            a_move(1, 1, scores=SCORES),
            a_move(2, 3, base=1, scores=gained(9)),
            a_move(2, 2, base=1, kind="force"),
        ],
        2,
        [1, 3, 2],
    ),
    "a rollback stands against a promotion of the same moment, and withdraws only what it saw": (
        [
            a_move(1, 1, scores=SCORES),
            a_move(2, 2, base=1, scores=gained(1)),
            a_move(3, 3, base=2, scores=gained(2)),
            a_move(3, 1, base=2, kind="rollback", withdraws=(2,)),
        ],
        1,
        [1],
    ),
    "two people who roll back at once go back once": (
        [
            *(a_move(n, n, base=n - 1, scores=gained(n)) for n in (1, 2, 3)),
            a_move(4, 2, base=3, kind="rollback", withdraws=(3,)),
            a_move(4, 2, base=3, kind="rollback", withdraws=(3,)),
        ],
        2,
        [1, 2],
    ),
    "the gate does not bring back what was rolled back without its knowledge": (
        [
            a_move(1, 1, scores=SCORES),
            a_move(2, 2, base=1, scores=gained(1)),
            a_move(3, 1, base=2, kind="rollback", withdraws=(2,)),
            a_move(4, 2, base=1, scores=gained(1)),
        ],
        1,
        [1],
    ),
    "force brings back what was rolled back": (
        [
            a_move(1, 1, scores=SCORES),
            a_move(2, 2, base=1, scores=gained(1)),
            a_move(3, 1, base=2, kind="rollback", withdraws=(2,)),
            a_move(4, 2, base=1, kind="force"),
        ],
        2,
        [1, 2],
    ),
}


@pytest.mark.parametrize("case", MOVES)
def test_the_champion_is_a_function_of_the_moves_in_whatever_order_they_are_read(case):
    moves, champion, line = MOVES[case]
    standings = [replay(order) for order in permutations(moves)]
    assert {standing.champion for standing in standings} == {champion}
    assert {standing.line for standing in standings} == {tuple(line)}
    assert len({standing.history for standing in standings}) == 1


def test_a_move_is_read_back_from_its_tag_as_it_was_written():
    move = a_move(7, 3, scores=SCORES, withdraws=(4, 5), kind="rollback", base=5)
    assert moves_in({move.tag: move.to_json(), "other": "tag"}) == [move]


def test_a_first_version_has_to_beat_jpeg_and_its_scores_stay_readable(registry):
    a_model(registry, "first", 2)
    lost = registry.promotions.promote("first", 1, replace(SCORES, psnr=27), jpeg=JPEG)
    assert lost.alias == "challenger"
    assert registry.promotions.promote("first", 2, SCORES, jpeg=JPEG).alias == "champion"
    assert registry.version("first", 2).tags["gate.jpeg_psnr"] == "27.8"
    assert registry.version("first", 1).aliases == ("challenger",)
    assert line_of(registry, "first") == [("gate", 2)]


def test_a_forced_champion_carries_who_forced_it_and_why(registry):
    a_model(registry, "forced", 2)
    registry.promotions.promote("forced", 1, gained(1))
    refused = registry.promotions.promote("forced", 2, SCORES)
    assert refused.alias == "challenger"
    decision = registry.promotions.force("forced", 2, by="ana", reason="1 fails on scans")
    assert decision.reason == "forced by ana: 1 fails on scans"
    tags = registry.version("forced", 2).tags
    assert tags["gate.forced"].endswith("by ana: 1 fails on scans")
    assert tags["gate.decision"] == "champion"
    assert tags["gate.psnr"] == "28.0"
    assert registry.version("forced", 2).aliases == ("champion",)
    last = registry.promotions.history("forced")[-1].move
    assert (last.kind, last.version, last.by, last.reason) == (
        "force", 2, "ana", "1 fails on scans",
    )  # fmt: skip
    assert abs(now() - last.when) < timedelta(minutes=1)


def test_the_gate_does_not_replace_a_forced_champion_that_has_no_scores(registry):
    a_model(registry, "unscored", 2)
    registry.promotions.force("unscored", 1, by="ana", reason="it is right for scans")
    decision = registry.promotions.promote("unscored", 2, gained(9), jpeg=JPEG)
    assert decision.alias == "challenger"
    assert "version 1 is champion and has no scores" in decision.reason
    compare = "qfactory models compare unscored/1 unscored/2 --dataset classic5"
    assert compare in decision.reason
    assert champion_of(registry, "unscored") == 1
    registry.promotions.promote("unscored", 1, SCORES)
    assert registry.promotions.promote("unscored", 2, gained(9)).alias == "champion"


def test_who_becomes_challenger_while_the_alias_is_taken_from_another_keeps_it(
    registry, monkeypatch
):
    client = a_model(registry, "late", 3)
    registry.promotions.force("late", 1, by="ana", reason="to begin with")
    assert registry.promotions.promote("late", 2, SCORES).alias == "challenger"
    delete = MlflowClient.delete_registered_model_alias

    def rival_comes_first(self: MlflowClient, name: str, alias: str) -> None:
        monkeypatch.undo()
        assert registry.promotions.promote(name, 3, replace(SCORES, psnr=1)).alias == "challenger"
        delete(self, name, alias)

    monkeypatch.setattr(MlflowClient, "delete_registered_model_alias", rival_comes_first)
    registry.promotions.force("late", 2, by="ana", reason="better")
    aliases = client.get_registered_model("late").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {
        "champion": 2,
        "challenger": 3,
    }


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_force_and_rollback_want_a_reason(registry, reason):
    with pytest.raises(ValueError, match="give 1 to 1000"):
        registry.promotions.force("forced", 1, by="ana", reason=reason)
    with pytest.raises(ValueError, match="give 1 to 1000"):
        registry.promotions.rollback("forced", by="ana", reason=reason)


@pytest.mark.slow
def test_rollback_goes_back_one_champion_at_a_time_and_the_gate_respects_it(registry):
    a_model(registry, "back", 4)
    for version in (1, 2, 3):
        assert registry.promotions.promote("back", version, gained(version)).alias == "champion"
    move = registry.promotions.rollback("back", by="ana", reason="stripes on scans")
    assert (move.version, move.base, move.withdraws) == (2, 3, (3,))
    assert champion_of(registry, "back") == 2
    assert "by ana: stripes on scans" in registry.version("back", 3).tags["gate.rolled_back"]
    again = registry.promotions.promote("back", 3, gained(3))
    assert again.alias == "challenger"
    assert "rolled back on" in again.reason
    assert champion_of(registry, "back") == 2
    assert registry.promotions.promote("back", 2, gained(2)).reason == "it is the champion already"
    assert registry.version("back", 2).tags["gate.reason"].startswith("rolled back to, from")
    assert registry.promotions.rollback("back", by="bo", reason="2 as well").version == 1
    with pytest.raises(RegistryError, match=r"no champion before version 1.*\[2, 3\]"):
        registry.promotions.rollback("back", by="bo", reason="1 as well")
    assert registry.promotions.promote("back", 4, gained(0.5)).alias == "challenger"
    assert registry.promotions.promote("back", 4, gained(1.5)).alias == "champion"
    registry.promotions.force("back", 3, by="ana", reason="the scans were at fault")
    assert "gate.rolled_back" not in registry.version("back", 3).tags
    assert champion_of(registry, "back") == 3
    assert line_of(registry, "back") == [
        ("gate", 1), ("gate", 2), ("gate", 3), ("rollback", 2), ("rollback", 1), ("gate", 4),
        ("force", 3),
    ]  # fmt: skip
    assert registry.promotions.rollback("back", by="ana", reason="no").version == 4


@pytest.mark.slow
def test_rollback_to_an_earlier_champion_withdraws_all_after_it(registry):
    a_model(registry, "far", 4)
    for version in (1, 2, 3):
        registry.promotions.promote("far", version, gained(version))
    with pytest.raises(RegistryError, match=r"version 4 is not an earlier champion; .* \[1, 2\]"):
        registry.promotions.rollback("far", by="ana", reason="r", to=4)
    registry.promotions.rollback("far", by="ana", reason="r", to=1)
    for version in (2, 3):
        assert registry.promotions.promote("far", version, gained(version)).alias == "challenger"
    assert champion_of(registry, "far") == 1


@pytest.mark.slow
def test_the_same_weights_under_another_number_do_not_come_back_either(registry):
    client = a_model(registry, "same", 1)
    for _ in range(2):
        client.create_model_version("same", NOWHERE, tags={"weights_sha256": "ab"})
    registry.promotions.promote("same", 1, SCORES)
    registry.promotions.promote("same", 2, gained(1))
    registry.promotions.rollback("same", by="ana", reason="stripes")
    decision = registry.promotions.promote("same", 3, gained(1))
    assert decision.alias == "challenger"
    assert decision.reason.startswith("the weights of version 2, rolled back on")


@pytest.mark.slow
def test_an_alias_that_was_moved_outside_is_respected_and_becomes_history(registry):
    client = a_model(registry, "outside", 3)
    client.set_registered_model_alias("outside", "champion", "1")  # before there was a history
    recorded = registry.promotions.promote("outside", 1, SCORES)
    assert recorded.reason == "it is the champion already"
    assert registry.promotions.promote("outside", 2, gained(2)).alias == "champion"
    client.set_registered_model_alias("outside", "champion", "1")
    assert registry.promotions.promote("outside", 3, gained(1)).alias == "champion"
    assert line_of(registry, "outside") == [
        ("outside", 1), ("gate", 2), ("outside", 1), ("gate", 3),
    ]  # fmt: skip
    client.delete_registered_model_alias("outside", "champion")
    registry.promotions.rollback("outside", by="ana", reason="nobody serves")
    assert champion_of(registry, "outside") == 3


@pytest.mark.slow
def test_a_deleted_champion_is_followed_by_the_one_before(registry):
    client = a_model(registry, "deleted", 2)
    for version in (1, 2):
        registry.promotions.promote("deleted", version, gained(version))
    client.delete_model_version("deleted", "2")
    registry.promotions.rollback("deleted", by="ana", reason="2 is gone")
    assert champion_of(registry, "deleted") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("age_s", "champion"), [(0, 2), (120, 1)], ids=["just now", "long ago"])
def test_a_writer_killed_before_it_set_the_alias(registry, age_s, champion):
    """Just now its move is completed by the next writer; long ago the alias counts."""
    name = f"killed-{age_s}"
    client = a_model(registry, name, 3)
    registry.promotions.promote(name, 1, SCORES)
    when = now() - timedelta(seconds=age_s)
    (first,) = registry.promotions.history(name)
    killed = a_move(first.move.number + 1, 2, base=1, scores=gained(2), when=when)
    client.set_registered_model_tag(name, killed.tag, killed.to_json())
    third = registry.promotions.promote(name, 3, gained(1))
    assert third.alias == ("champion" if champion == 1 else "challenger")
    registry.promotions.force(name, 1, by="ana", reason="settles what is open")
    kinds = line_of(registry, name)
    assert (("outside", 1) in kinds) == (champion == 1)
    assert champion_of(registry, name) == 1


def write(uri: str, name: str, work: list[tuple[str, int, float]], start, told) -> None:
    """Do one process's part of the work, when all others are ready as well."""
    registry = ModelRegistry(uri)
    registry.versions(name)  # the database is opened before the start
    start.wait()
    answers = []
    for kind, version, psnr in work:
        if kind == "gate":
            scores = replace(SCORES, psnr=psnr)
            answers.append(registry.promotions.promote(name, version, scores).alias)
        elif kind == "force":
            decision = registry.promotions.force(name, version, by="ana", reason="a try")
            answers.append(decision.alias)
        else:
            try:
                answers.append(registry.promotions.rollback(name, by="bo", reason="a try").version)
            except RegistryError as error:
                answers.append(str(error))
    told.send(answers)


def at_once(uri: str, name: str, work: list[list[tuple[str, int, float]]]) -> list[list]:
    """Let processes work at the same time; return what each was told."""
    start = FORKS.Barrier(len(work), timeout=240)
    pipes = [FORKS.Pipe(duplex=False) for _ in work]
    writers = [
        FORKS.Process(target=write, args=(uri, name, part, start, told))
        for part, (_, told) in zip(work, pipes, strict=True)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=240)
    assert [writer.exitcode for writer in writers] == [0] * len(work)
    return [answers.recv() for answers, _ in pipes]


def check_consistent(registry: ModelRegistry, name: str) -> None:
    """One champion, which is what the history adds up to, and nobody's move is lost."""
    holders = [v.version for v in registry.versions(name) if "champion" in v.aliases]
    model = open_client(registry.uri).get_registered_model(name)
    moves = moves_in(model.tags)
    assert holders == [replay(moves).champion]
    assert all(move.done for move in moves)
    assert not [found.uri for found in registry.versions(name) if len(found.aliases) > 1]
    assert "outside" not in {move.kind for move in moves}


@pytest.mark.slow
def test_processes_that_promote_at_once_leave_the_best_as_the_one_champion(registry):
    a_model(registry, "contended", 3)
    gains = {1: 0.1, 2: 0.9, 3: 0.5}
    work = [[("gate", version, SCORES.psnr + gain)] for version, gain in gains.items()]
    told = at_once(registry.uri, "contended", work)
    assert champion_of(registry, "contended") == 2
    assert told[1] == ["champion"]
    check_consistent(registry, "contended")


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=["SQLite", "server"])
def test_gate_force_and_rollback_in_processes_at_once_end_in_one_champion(
    registry, tmp_path, served
):
    def check(registry: ModelRegistry) -> None:
        name = "mixed"
        a_model(registry, name, 8)
        registry.promotions.promote(name, 1, SCORES)
        registry.promotions.promote(name, 2, gained(0.1))
        draw = random.Random(0)
        numbers = [*range(3, 9)]
        draw.shuffle(numbers)
        gate = [[("gate", v, SCORES.psnr + v / 10) for v in numbers[part::2]] for part in (0, 1)]
        people = [("force", 1, 0.0), ("rollback", 0, 0.0), ("force", 2, 0.0), ("rollback", 0, 0.0)]
        told = at_once(registry.uri, name, [*gate, people])
        check_consistent(registry, name)
        kinds = [entry.move.kind for entry in registry.promotions.history(name)]
        assert kinds.count("rollback") == sum(isinstance(answer, int) for answer in told[2])
        assert kinds.count("rollback") >= 1

    if not served:
        check(registry)
        return
    with running_server(tmp_path, free_port()) as uri:
        check(ModelRegistry(uri))
