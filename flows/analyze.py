"""The analyze flow: recipes that differ in one thing, trained equally long and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.parameters import (
    Accelerator,
    ComparisonName,
    GpusPerWorker,
    PrecisionChoice,
    Reference,
    References,
    Steps,
    Threads,
    Workers,
)
from flows.reporting.score_tables import Row, label_of
from flows.settings import settings
from flows.steps.image_sets import default_sets
from flows.steps.scoring import TrainedModel
from flows.steps.side_by_side import Outcome
from flows.steps.study_results import StudyResult, raise_failures
from flows.steps.training import TrainingPlan
from flows.study import run_study
from models import build_model
from models.measuring.complexity import total_memory_mb
from pipeline.drawing.charts import line_chart, save_png
from pipeline.evaluation import published
from pipeline.evaluation.scores import Comparison, MeanScore
from pipeline.recipes.base import Recipe
from pipeline.recipes.comparisons import get_comparison, on_a_budget
from pipeline.training.job import TrainingError
from storage.tracking.tracked_run import TrackedRun

COLUMNS = ("recipe", "parameters", "MB", "set", "qf", "psnr", "gain", "ssim", "psnr_b")


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a comparison of recipes found."""

    title: str
    source: str
    """Paper and figure or table."""
    rows: tuple[Row, ...]
    """A row for every recipe, set and quality factor; one that says `failed` or `skipped` for a
    recipe that could not be trained."""
    chart: str
    """Path of the PNG with the PSNR against the steps, on the validation set or on patches that
    were held out."""
    notes: tuple[str, ...]
    """What was not recorded, and why a recipe could not be trained."""


@flow(name="analyze", flow_run_name="{comparison}")
def analyze(
    comparison: ComparisonName,
    dataset: Reference = "sample",
    steps: Steps = 2000,
    evaluate_on: References | None = None,
    workers: Workers | None = None,
    threads: Threads | None = None,
    accelerator: Accelerator = "auto",
    gpus_per_worker: GpusPerWorker = 1.0,
    precision: PrecisionChoice = "auto",
    fresh: bool = False,
) -> Analysis:
    """Train recipes that differ in one thing for equally many steps, and compare them.

    The networks are recorded in MLflow and not registered. A recipe that diverges is a row that
    says so; any other failure ends with StudyError when all else is done.

    Args:
        comparison: which recipes; `qfactory analyze list` shows them
        dataset: what to train on
        steps: optimiser steps of each recipe, and of those that they start from
        evaluate_on: sets to score on; by default LIVE1 and Classic5, or the held-out photographs
            for `sample`
        workers: training workers (default: QFACTORY_WORKERS)
        threads: CPU threads of a worker (default: all that a training alone can have)
        accelerator: what to compute on: `auto`, `cpu`, `gpu` or a type of GPU; see the study flow
        gpus_per_worker: GPUs of a worker, or the share of one
        precision: `auto` is bfloat16 where the device computes in it, else float32
        fresh: train from the start even if checkpoints of the same training exist
    """
    chosen = get_comparison(comparison)
    compared = [recipe.name for recipe in chosen.recipes]
    ordered = on_a_budget(chosen.recipes, steps)
    plan = TrainingPlan(
        evaluate_on=tuple(evaluate_on or default_sets(dataset)),
        workers=workers or settings().workers,
        threads=threads,
        accelerator=accelerator,
        gpus_per_worker=gpus_per_worker,
        precision=precision,
        fresh=fresh,
        register=False,
    )
    chart = settings().reports / comparison / f"{label_of(dataset)}-{steps}-steps.png"

    def summarise(run: TrackedRun, outcomes: Mapping[str, Outcome[TrainedModel]]) -> None:
        models = [o.value for name, o in outcomes.items() if o.value and name in compared]
        if models:
            on = {recipe.looks_at or "held-out patches" for recipe in ordered}
            title = f"{chosen.title} ({chosen.source})"
            draw_convergence(models, chart, title, f"PSNR on {', '.join(sorted(on))}, dB")
            run.log_file(chart, "charts")
        if not models or not all(_is_a_finding(outcome) for outcome in outcomes.values()):
            raise_failures(outcomes)

    result = run_study(
        ordered,
        plan,
        dataset=dataset,
        name=f"analysis-{comparison}",
        params={"dataset": dataset, "comparison": comparison, "steps": steps},
        summarise=summarise,
    )
    rows = comparison_rows([recipe for recipe in ordered if recipe.name in compared], result)
    failures = [f"{o.recipe} {o.state}: {o.reason}" for o in result.outcomes if o.reason]
    create_table_artifact(list(rows), key="analysis", description=f"{chosen.title}, {steps} steps")
    return Analysis(
        title=chosen.title,
        source=chosen.source,
        rows=rows,
        chart=str(chart),
        notes=(*result.notes, *failures),
    )


def _is_a_finding(outcome: Outcome[TrainedModel]) -> bool:
    """Tell whether an outcome says something of the recipe: trained, or diverged."""
    return outcome.error is None or isinstance(outcome.error, TrainingError)


def draw_convergence(models: Sequence[TrainedModel], path: Path, title: str, psnr: str) -> None:
    """Draw the validation PSNR against the steps, a line for each network; `psnr` names it."""
    curves = {
        model.recipe: [
            (record.step, record.validation_psnr)
            for record in model.history
            if record.validation_psnr is not None
        ]
        for model in models
    }
    chart = line_chart(curves, title=title, x_label="optimiser steps", y_label=psnr)
    save_png(chart, path)


def comparison_rows(recipes: Sequence[Recipe], result: StudyResult) -> tuple[Row, ...]:
    """Return what every compared network costs (see models.measuring.complexity) and reaches.

    A recipe that was not trained has `failed` or `skipped` for its PSNR. What papers print of the
    same networks comes last, its SSIM only where it is the uniform one.
    """
    models = {model.recipe: model for model in result.models}
    states = {outcome.recipe: outcome.state for outcome in result.outcomes}
    rows: list[Row] = []
    printed: dict[tuple[str, str, int], Row] = {}
    for recipe in recipes:
        costs = _costs(recipe)
        if recipe.name not in models:
            rows.append(_row({**costs, "psnr": states[recipe.name]}))
            continue
        for scored in models[recipe.name].scores.values():
            for mean in scored.restored.rows:
                where: Row = {"set": mean.label, "qf": mean.qf}
                rows.append(_row({**costs, **where, **_reached(scored, mean)}))
                for row, _ in published.beside(recipe.architecture, mean):
                    values = {"recipe": f"published: {row.label}", **where, **row.metrics}
                    printed[row.label, mean.label, mean.qf] = _row(values)
    return (*rows, *printed.values())


def _costs(recipe: Recipe) -> Row:
    network = build_model(recipe.architecture, recipe.options)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    memory = round(total_memory_mb(network), 2)
    return {"recipe": recipe.name, "parameters": parameters, "MB": memory}


def _reached(scored: Comparison, mean: MeanScore) -> Row:
    return {
        "psnr": round(mean.metrics["psnr"], 2),
        "gain": round(scored.gain(mean.qf), 3),
        "ssim": round(mean.metrics["ssim"], 4),
        "psnr_b": round(mean.metrics["psnr_b"], 2),
    }


def _row(values: Mapping[str, str | float]) -> Row:
    """Return a row of the table; what is not known is empty."""
    return {name: values.get(name, "") for name in COLUMNS}
