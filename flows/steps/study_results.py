"""How a study went, recipe by recipe: the result, its tables, and the error that names failures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Literal

from prefect.artifacts import create_table_artifact

from flows.reporting.score_tables import JPEG_ROW, Row, score_rows
from flows.runtime import going_on, say
from flows.steps.publishing import WrittenReport
from flows.steps.scoring import TrainedModel
from flows.steps.side_by_side import Outcome

REASON_LENGTH = 600


@dataclass(frozen=True, kw_only=True)
class RecipeOutcome:
    """How one recipe of a study went."""

    recipe: str
    state: Literal["trained", "reused", "failed", "skipped"]
    reason: str = ""
    """Why it failed, or whose failure it was skipped for."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What a study made."""

    name: str
    outcomes: tuple[RecipeOutcome, ...]
    """Every recipe, those included that a transfer needed."""
    models: tuple[TrainedModel, ...]
    """Of the recipes that were trained or reused."""
    rows: tuple[Row, ...]
    """The table: for every set and quality factor JPEG, and each network with its gain."""
    notes: tuple[str, ...]
    """What was not recorded or registered, and where it is instead."""
    report: str | None = None
    """Path of the HTML report; None if there is none."""


class StudyError(Exception):
    """Recipes of a study failed; the message names them, and the command that goes on."""

    result: StudyResult | None = None
    """What was done all the same."""


def outcome_of(recipe: str, outcome: Outcome[TrainedModel]) -> RecipeOutcome:
    """Return how a recipe went, in words."""
    if outcome.value is not None:
        return RecipeOutcome(recipe=recipe, state=outcome.value.state)
    if outcome.error is not None:
        reason = shorten(str(outcome.error), REASON_LENGTH) or type(outcome.error).__name__
        return RecipeOutcome(recipe=recipe, state="failed", reason=reason)
    reason = f"it starts from {outcome.skipped_for}, which failed"
    return RecipeOutcome(recipe=recipe, state="skipped", reason=reason)


def raise_failures(outcomes: Mapping[str, Outcome[TrainedModel]]) -> None:
    """Raise StudyError if a recipe failed."""
    told = [outcome_of(name, outcome) for name, outcome in outcomes.items()]
    failed = [f"{one.recipe} failed ({one.reason})" for one in told if one.state == "failed"]
    skipped = [f"{one.recipe} was skipped ({one.reason})" for one in told if one.state == "skipped"]
    if failed:
        raise StudyError(
            f"{len(failed)} of {len(told)} recipes failed: {'; '.join([*failed, *skipped])}. "
            f"All else is done; this goes on: {going_on()}"
        )


def study_result(
    name: str,
    outcomes: Mapping[str, Outcome[TrainedModel]],
    unrecorded: Sequence[str],
    report: WrittenReport,
) -> StudyResult:
    """Leave the study's tables as artifacts and return the result."""
    told = tuple(outcome_of(recipe, outcome) for recipe, outcome in outcomes.items())
    models = tuple(o.value for o in outcomes.values() if o.value is not None)
    rows = tuple(one_table(models))
    create_table_artifact(list(rows), key="study", description=f"Results of study {name}")
    create_table_artifact(
        [asdict(one) for one in told], key="recipes", description=f"Recipes of study {name}"
    )
    notes = notes_of(models, unrecorded, report.note)
    return StudyResult(
        name=name, outcomes=told, models=models, rows=rows, notes=notes, report=report.path
    )


def one_table(models: Sequence[TrainedModel]) -> list[Row]:
    """Return the rows of several networks by set and quality factor, that of JPEG once of each."""
    by_place: dict[tuple[object, object], list[Row]] = {}
    for row in (row for model in models for row in rows_of(model)):
        rows = by_place.setdefault((row["set"], row["qf"]), [])
        if row[""] != JPEG_ROW or not rows:
            rows.append(row)
    return [row for rows in by_place.values() for row in rows]


def rows_of(model: TrainedModel) -> list[Row]:
    """Return the table of one network: on every set JPEG, the network, the gain."""
    return [
        row
        for comparison in model.scores.values()
        for row in score_rows(model.recipe, comparison, model.architecture)
    ]


def notes_of(
    models: Sequence[TrainedModel], unrecorded: Sequence[str], *more: str
) -> tuple[str, ...]:
    """Return, and tell, what was not recorded or registered, and what else is not empty."""
    notes = tuple(f"not recorded in MLflow: {what}" for what in unrecorded)
    notes += tuple(model.note for model in models if model.note)
    notes += tuple(note for note in more if note)
    for note in notes:
        say(f"WARNING: {note}")
    return notes
