"""The report of a study, and how its networks were made."""

from collections.abc import Mapping, Sequence

from flows.planning.named_networks import restorer_of
from flows.reporting.evaluation_report import made_of, recorded_curves
from flows.reporting.report_inputs import report_of
from flows.runtime import going_on
from flows.settings import git_commit, settings
from flows.steps.publishing import WrittenReport, default_path, write_report
from flows.steps.scoring import TrainedModel
from flows.steps.side_by_side import Outcome
from pipeline.recipes import Recipe
from pipeline.reports.analyses import ScoredNetwork
from pipeline.reports.report_data import ReportedNetwork, cost_of, finite_curve
from storage.patches.versions import StoreVersion
from storage.registry.model_registry import ModelRegistry, RegisteredVersion, RegistryError
from storage.tracking.tracked_run import TrackedRun


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
        default_path(name),
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
    return ScoredNetwork(reported=reported, restorer=restorer_of(model.weights), qfs=recipe.qfs)


def _made_by_study(model: TrainedModel, recipe: Recipe, version: StoreVersion) -> dict[str, str]:
    start, registered = recipe.init_from, _registered(model, recipe)
    alias = f" (@{model.alias})" if model.alias else ""
    return {
        "model": f"{registered.uri}{alias}" if registered is not None else "not registered",
        "in this study": model.state,
        "after": recipe.source,
        "starts from": f"the weights of {start.recipe}" if start is not None else "",
        **made_of(registered.tags if registered is not None else _tags(model, recipe, version)),
    }


def _registered(model: TrainedModel, recipe: Recipe) -> RegisteredVersion | None:
    """Return the registered version of these weights; None if there is none to be found."""
    registry = ModelRegistry(settings().mlflow_uri)
    try:
        if model.model is not None:
            return registry.resolve(model.model)
        if model.state == "reused":
            return registry.find_version(recipe.model_name, {"weights": model.weights})
    except RegistryError:
        pass
    return None


def _tags(model: TrainedModel, recipe: Recipe, version: StoreVersion) -> dict[str, str]:
    """Return what the tags of a version of these weights would say."""
    return {
        "recipe": recipe.name,
        "qfs": " ".join(map(str, recipe.qfs)),
        "steps": str(model.steps),
        "seconds": f"{model.seconds:.1f}",
        "dataset": version.dataset,
        "dataset_fingerprint": version.dataset_fingerprint,
        "store_version": version.name,
        "recipe_fingerprint": recipe.fingerprint,
        "git_commit": git_commit() if model.state == "trained" else "",
        "weights": model.weights,
    }
