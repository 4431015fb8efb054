"""Commands that run flows: they take the flow's own parameters, and show what came out."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from flows.cli.command_runs import run_flow
from flows.cli.flow_commands import runs
from flows.console import out, print_json, show_table
from flows.reporting import pages
from flows.reporting.score_tables import SPARE, Row
from flows.restore_batch import restore_batch as restore_batch_flow
from flows.restore_batch import table_of
from flows.steps.scoring import TrainedModel
from flows.steps.study_results import StudyError, StudyResult, rows_of
from flows.study import study as study_flow
from flows.train import TrainingSlice
from flows.train import train as train_flow
from pipeline.restoring.batch_run import RestoredBatch

LARGE = ("history", "scores")
"""Of a TrainedModel: what MLflow holds and no answer repeats."""


@runs(restore_batch_flow)
def restore_batch(*arguments: Any, json: bool = False, **options: Any) -> int:  # noqa: ANN401
    """Run the flow and show what became of the photographs; 1 if some have no output."""
    result = cast(RestoredBatch, run_flow(restore_batch_flow, *arguments, **options))
    if json:
        print_json(asdict(result))
    else:
        show_table(table_of(result))
        out.print(f"\n{result.manifest}: a row a photograph; to choose from: {result.networks}")
    return 1 if result.failed else 0


@runs(study_flow)
def study(*arguments: Any, json: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Run the flow and show the table, the pictures, and where to look further."""
    show = _study_as_json if json else _show_study
    try:
        show(cast(StudyResult, run_flow(study_flow, *arguments, **options)))
    except StudyError as error:
        if error.result is not None:
            show(error.result)
        raise


@runs(train_flow)
def train(*arguments: Any, json: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Run the flow and show what came out."""
    made = cast(TrainedModel | TrainingSlice, run_flow(train_flow, *arguments, **options))
    if isinstance(made, TrainingSlice):
        print_json(asdict(made)) if json else out.print(str(made))
    elif json:
        print_json({**_model_json(made), "rows": rows_of(made)})
    else:
        _show([made], rows_of(made), [made.note] if made.note else [])


def _study_as_json(result: StudyResult) -> None:
    models = [_model_json(model) for model in result.models]
    outcomes = [asdict(outcome) for outcome in result.outcomes]
    answer = {"rows": result.rows, "models": models, "recipes": outcomes}
    print_json({**answer, "notes": result.notes, "report": result.report})


def _model_json(model: TrainedModel) -> dict[str, object]:
    return {name: value for name, value in vars(model).items() if name not in LARGE}


def _show_study(result: StudyResult) -> None:
    _show(result.models, result.rows, result.notes, result.report)
    if len(result.outcomes) > 1:
        out.print()
        show_table([asdict(outcome) for outcome in result.outcomes])


def _show(
    models: Sequence[TrainedModel],
    rows: Sequence[Row],
    notes_: Sequence[str],
    report: str | None = None,
) -> None:
    out.print()
    show_table(rows, spare=SPARE)
    for model in models:
        registered = f"{model.model} (@{model.alias})" if model.model else "not registered"
        told = "reused, " if model.state == "reused" else ""
        cost = f"{model.steps:,} steps, {model.seconds:.0f} s"
        out.print(f"\n{model.recipe}: {registered}, {told}{cost}")
        out.print(f"  before and after: {model.picture}")
        out.print(f"  weights: {model.weights}")
    for note in notes_:
        out.print(f"[yellow]WARNING[/] {note}")
    out.print()
    if report is not None:
        out.print(f"Report:   {report}")
    out.print(f"MLflow:   {pages.mlflow_command()}")
    out.print(f"Prefect:  {pages.prefect_command()}")
