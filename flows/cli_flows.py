"""Commands that run flows: they take the flow's own parameters, and show what came out."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any, cast

from flows import reporting
from flows.build_patches import build_patches
from flows.command_runs import run_flow
from flows.console import out, show_table
from flows.model_steps import TrainedModel
from flows.restore_batch import RestoredBatch, table_of
from flows.restore_batch import restore_batch as restore_batch_flow
from flows.score_tables import Row
from flows.study import study as study_flow
from flows.study_results import StudyError, StudyResult, rows_of
from flows.train import TrainingSlice
from flows.train import train as train_flow
from storage.patch_store import StoreVersion


@wraps(build_patches.fn)
def build(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and name the store."""
    version = cast(StoreVersion, run_flow(build_patches, *arguments, **options))
    out.print(f"{version.name}: {version.rows:,} patches, {version.bytes / 1e6:.1f} MB")


@wraps(restore_batch_flow.fn)
def restore_batch(*arguments: Any, **options: Any) -> int:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and show what became of the photographs; 1 if some have no output."""
    result = cast(RestoredBatch, run_flow(restore_batch_flow, *arguments, **options))
    show_table(table_of(result))
    out.print(f"\n{result.manifest}: a row a photograph; restored with {result.networks}")
    return 1 if result.failed else 0


@wraps(study_flow.fn)
def study(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and show the table, the pictures, and where to look further."""
    try:
        _show_study(cast(StudyResult, run_flow(study_flow, *arguments, **options)))
    except StudyError as error:
        if error.result is not None:
            _show_study(error.result)
        raise


@wraps(train_flow.fn)
def train(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and show what came out."""
    made = cast(TrainedModel | TrainingSlice, run_flow(train_flow, *arguments, **options))
    if isinstance(made, TrainingSlice):
        out.print(str(made))
        return
    _show([made], rows_of(made), [made.note] if made.note else [])


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
    show_table(rows)
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
    out.print(f"MLflow:   {reporting.mlflow_command()}")
    out.print(f"Prefect:  {reporting.prefect_command()}")
