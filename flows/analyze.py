"""The analyze flow: recipes that differ in one thing, trained equally long and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.model_steps import TrainedModel, TrainingPlan
from flows.parameters import ComparisonName, Reference, References, Steps, Threads, Workers
from flows.score_tables import Row, label_of
from flows.settings import settings
from flows.side_by_side import Outcome
from flows.study import run_study
from flows.study_results import StudyResult
from flows.study_steps import default_sets
from models import build_model
from models.complexity import total_memory_mb
from pipeline import published
from pipeline.charts import line_chart, save_png
from pipeline.recipes.base import Recipe
from pipeline.recipes.comparisons import get_comparison, on_a_budget
from storage.tracked_run import TrackedRun


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a comparison of recipes found."""

    title: str
    source: str
    """Paper and figure or table."""
    rows: tuple[Row, ...]
    """A row for every recipe, set and quality factor."""
    chart: str
    """Path of the PNG with the PSNR of held-out patches against the steps."""
    notes: tuple[str, ...]


@flow(name="analyze", flow_run_name="{comparison}")
def analyze(
    comparison: ComparisonName,
    dataset: Reference = "sample",
    steps: Steps = 2000,
    evaluate_on: References | None = None,
    workers: Workers | None = None,
    threads: Threads | None = None,
    fresh: bool = False,
) -> Analysis:
    """Train recipes that differ in one thing for equally many steps, and compare them.

    The networks are recorded in MLflow and not registered.

    Args:
        comparison: which recipes; `qfactory analyze list` shows them
        dataset: what to train on
        steps: optimiser steps of each recipe, and of those that they start from
        evaluate_on: sets to score on; by default LIVE1 and Classic5, or the held-out photographs
            for `sample`
        workers: training workers (default: QFACTORY_WORKERS)
        threads: CPU threads of a worker (default: all that a training alone can have)
        fresh: train from the start even if checkpoints of the same training exist
    """
    chosen = get_comparison(comparison)
    compared = [recipe.name for recipe in chosen.recipes]
    ordered = on_a_budget(chosen.recipes, steps)
    plan = TrainingPlan(
        evaluate_on=tuple(evaluate_on or default_sets(dataset)),
        workers=workers or settings().workers,
        threads=threads,
        fresh=fresh,
        register=False,
    )
    chart = settings().reports / comparison / f"{label_of(dataset)}-{steps}-steps.png"

    def summarise(run: TrackedRun, outcomes: Mapping[str, Outcome[TrainedModel]]) -> None:
        models = [o.value for name, o in outcomes.items() if o.value and name in compared]
        if models:
            draw_convergence(models, chart, f"{chosen.title} ({chosen.source})")
            run.log_file(chart, "charts")

    result = run_study(
        ordered,
        plan,
        dataset=dataset,
        name=f"analysis-{comparison}",
        params={"dataset": dataset, "comparison": comparison, "steps": steps},
        summarise=summarise,
    )
    rows = comparison_rows([recipe for recipe in ordered if recipe.name in compared], result)
    create_table_artifact(list(rows), key="analysis", description=f"{chosen.title}, {steps} steps")
    return Analysis(
        title=chosen.title,
        source=chosen.source,
        rows=rows,
        chart=str(chart),
        notes=result.notes,
    )


def draw_convergence(models: Sequence[TrainedModel], path: Path, title: str) -> None:
    """Draw the PSNR of held-out patches against the steps, a line for each network."""
    curves = {
        model.recipe: [
            (record.step, record.validation_psnr)
            for record in model.history
            if record.validation_psnr is not None
        ]
        for model in models
    }
    chart = line_chart(
        curves, title=title, x_label="optimiser steps", y_label="PSNR of held-out patches, dB"
    )
    save_png(chart, path)


def comparison_rows(recipes: Sequence[Recipe], result: StudyResult) -> tuple[Row, ...]:
    """Return what every compared network costs (see models.complexity) and reaches.

    What papers print of the same networks comes last, its SSIM only where it is the uniform one.
    """
    models = {model.recipe: model for model in result.models}
    rows: list[Row] = []
    printed: dict[tuple[str, str, int], Row] = {}
    for recipe in recipes:
        network = build_model(recipe.architecture, recipe.options)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        memory = round(total_memory_mb(network), 2)
        for scored in models[recipe.name].scores.values():
            for mean in scored.restored.rows:
                rows.append(
                    {
                        "recipe": recipe.name,
                        "parameters": parameters,
                        "MB": memory,
                        "set": mean.label,
                        "qf": mean.qf,
                        "psnr": round(mean.metrics["psnr"], 2),
                        "gain": round(scored.gain(mean.qf), 3),
                        "ssim": round(mean.metrics["ssim"], 4),
                        "psnr_b": round(mean.metrics["psnr_b"], 2),
                    }
                )
                for row, _ in published.beside(recipe.architecture, mean):
                    values = {"psnr": "", "ssim": "", "psnr_b": "", **row.metrics}
                    printed[row.label, mean.label, mean.qf] = {
                        "recipe": f"published: {row.label}",
                        "parameters": "",
                        "MB": "",
                        "set": mean.label,
                        "qf": mean.qf,
                        "psnr": values["psnr"],
                        "gain": "",
                        "ssim": values["ssim"],
                        "psnr_b": values["psnr_b"],
                    }
    return (*rows, *printed.values())
