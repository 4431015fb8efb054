"""The report of a study, and the command that the study was, or goes on with."""

from collections.abc import Mapping, Sequence
from functools import partial
from shlex import join

from prefect.runtime import flow_run

from flows.model_steps import TrainedModel
from flows.networks import restorer_of
from flows.report_content import ScoredNetwork, report_of
from flows.report_networks import recorded_curves
from flows.report_output import PAGE, WrittenReport, write_report
from flows.reporting import label_of
from flows.settings import settings
from flows.side_by_side import Outcome
from pipeline.recipes import Recipe
from pipeline.report import ReportedNetwork, cost_of, finite_curve
from storage.patch_store import StoreVersion
from storage.tracking import TrackedRun

COMMANDS = {"analyze": ("analyze", "recipes")}  # of flows that have another name there


def report_study(
    run: TrackedRun,
    name: str,
    recipes: Sequence[Recipe],
    versions: Mapping[str, StoreVersion],
    outcomes: Mapping[str, Outcome[TrainedModel]],
) -> WrittenReport:
    """Write, record and link the report of the networks that were made.

    It stops no study: an error becomes the note.
    """
    made = [
        (outcome.value, recipe, versions[recipe.name])
        for recipe in recipes
        if (outcome := outcomes.get(recipe.name)) is not None and outcome.value is not None
    ]
    if not made:
        return WrittenReport()
    return write_report(
        run,
        settings().reports / label_of(name) / PAGE,
        lambda: report_of(f"Study {name}", going_on(), [of_study(*each) for each in made]),
    )


def of_study(model: TrainedModel, recipe: Recipe, version: StoreVersion) -> ScoredNetwork:
    """Return a network of a study; the curves of one that was reused are those MLflow holds."""
    history = model.history
    loss = finite_curve([(record.step, record.loss) for record in history])
    held_out = finite_curve(
        [(r.step, r.validation_psnr) for r in history if r.validation_psnr is not None]
    )
    if not history and model.training_run is not None:
        loss, held_out = recorded_curves(model.training_run)
    reported = ReportedNetwork(
        name=model.recipe,
        architecture=model.architecture,
        cost=cost_of(recipe.architecture, recipe.options),
        made=_made_by_study(model, recipe, version),
        training_run=model.training_run,
        loss=loss,
        validation_psnr=held_out,
        scores=tuple(model.scores.values()),
    )
    return ScoredNetwork(
        reported=reported, open=partial(restorer_of, model.weights), qfs=recipe.qfs
    )


def going_on() -> str:
    """Return the command that does the running flow again, without what would start it anew."""
    words = ["qfactory", *COMMANDS.get(str(flow_run.flow_name), (str(flow_run.flow_name),))]
    for name, value in flow_run.parameters.items():
        if value is None or value is False or name == "fresh":
            continue
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return join(words)


def _made_by_study(model: TrainedModel, recipe: Recipe, version: StoreVersion) -> dict[str, str]:
    start = recipe.init_from
    registered = f"{model.model} (@{model.alias})" if model.model else "no"
    return {
        "recipe": recipe.name,
        "after": recipe.source,
        "starts from": f"the weights of {start.recipe}" if start is not None else "",
        "trained for QF": ", ".join(map(str, recipe.qfs)),
        "steps": f"{model.steps:,}",
        "training time, s": f"{model.seconds:.0f}",
        "weights": f"{model.weights} ({model.state})",
        "registered": registered,
        "dataset": f"{version.dataset} ({version.images:,} images, {version.rows:,} patches)",
        "dataset fingerprint": version.dataset_fingerprint,
        "store version": version.name,
        "recipe fingerprint": recipe.fingerprint,
    }
