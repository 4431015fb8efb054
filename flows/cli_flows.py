"""Commands that run flows: they take the flow's own parameters, and show what came out."""

from collections.abc import Sequence
from functools import wraps
from typing import Any, cast

from flows import reporting
from flows.build_patches import build_patches
from flows.console import out, show_table
from flows.model_steps import TrainedModel
from flows.study import StudyResult
from flows.study import study as study_flow
from flows.train import train as train_flow
from storage.patch_store import StoreVersion


@wraps(build_patches.fn)
def build(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and name the store."""
    version = cast(StoreVersion, build_patches(*arguments, **options))
    out.print(f"{version.name}: {version.rows:,} patches, {version.bytes / 1e6:.1f} MB")


@wraps(study_flow.fn)
def study(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and show the table, the pictures, and where to look further."""
    result = cast(StudyResult, study_flow(*arguments, **options))
    _show(result.models, result.rows, result.notes)


@wraps(train_flow.fn)
def train(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and show what came out."""
    model = cast(TrainedModel, train_flow(*arguments, **options))
    rows = [
        row
        for comparison in model.scores.values()
        for row in reporting.score_rows(model.recipe, comparison)
    ]
    _show([model], rows, [model.note] if model.note else [])


def _show(
    models: Sequence[TrainedModel], rows: Sequence[reporting.Row], notes_: Sequence[str]
) -> None:
    out.print()
    show_table(rows)
    for model in models:
        registered = f"{model.model} (@{model.alias})" if model.model else "not registered"
        out.print(f"\n{model.recipe}: {registered}, {model.steps:,} steps, {model.seconds:.0f} s")
        out.print(f"  before and after: {model.picture}")
        out.print(f"  weights: {model.weights}")
    for note in notes_:
        out.print(f"[yellow]WARNING[/] {note}")
    out.print(f"\nMLflow:   {reporting.mlflow_command()}")
    out.print(f"Prefect:  {reporting.prefect_command()}")
