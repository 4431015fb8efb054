"""What a study finds in the registry, and the task that puts a trained network there."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from threading import Lock

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.planning.kept_scores import gate_scores
from flows.planning.named_networks import open_network
from flows.reporting.model_cards import CardFacts, model_card
from flows.runtime import say
from flows.settings import git_commit, settings
from pipeline.datasets import references
from pipeline.evaluation.precision_loss import middles, program_loss_db
from pipeline.evaluation.protocol import evaluate, load_images
from pipeline.evaluation.scores import Comparison
from pipeline.images.degrade import protocol_of
from pipeline.images.jpeg import quantization_table
from pipeline.networks.code_fingerprint import code_fingerprint
from pipeline.networks.devices import PrecisionChoice, choose_precision
from pipeline.networks.export import NetworkExport, export_network
from pipeline.networks.weights import load_network
from pipeline.recipes import Recipe
from pipeline.served.good_jpegs import GOOD_QF
from pipeline.timings import timed
from pipeline.training.identity import training_tags
from pipeline.training.job import Part, TrainingResult
from storage import files
from storage.patches.versions import StoreVersion
from storage.registry.gate import GateScores
from storage.registry.model_registry import (
    ModelRegistry,
    RegisteredVersion,
    RegistryError,
    scores_of,
)
from storage.tracking.tracked_run import TrackedRun

_exporting = Lock()  # torch.export works on state of the whole process
LOSS_IMAGES = 3
"""Of the gate set, whose middles tell what a network loses by bfloat16."""
PROTOCOL = "matlab-studio-y, grey JPEG by Pillow defaults, rounded, no crop"


def tell_competitors(recipes: Sequence[Recipe]) -> None:
    """Say which recipes will share a registered model, and its champion, with other recipes."""
    try:
        registry = ModelRegistry(settings().mlflow_uri)
        known = registry.list_models() if settings().has_mlflow else {}
    except RegistryError:
        known = {}  # the training warns of it when it looks for what can be reused
    for recipe in recipes:
        if others := competitors(recipe, recipes, known.get(recipe.model_name, ())):
            say(
                f"{recipe.name} will be a version of {recipe.model_name} and compete for @champion "
                f"with {', '.join(others)}; `registered_as` in a recipe names a model of its own"
            )


def competitors(
    recipe: Recipe, trained: Iterable[Recipe], versions: Iterable[RegisteredVersion]
) -> list[str]:
    """Return the names of other recipes whose networks have the registered model of this one.

    `trained` are the recipes of the same study, `versions` those that are registered already.
    """
    others = {other.name for other in trained if other.model_name == recipe.model_name}
    others |= {version.tags.get("recipe", "unknown") for version in versions}
    return sorted(others - {recipe.name})


def find_trained(
    recipe: Recipe,
    version: StoreVersion,
    initial_weights: str | None,
    precision: PrecisionChoice = "auto",
) -> tuple[RegisteredVersion, TrainingResult] | None:
    """Return the newest registered version of this very training whose weights file is whole.

    `precision` is that of the training; `auto` takes any. None if there is none, or if the registry
    cannot be asked.
    """
    wanted = training_tags(recipe, version, initial_weights)
    if precision != "auto":
        wanted["precision"] = precision
    try:
        versions = ModelRegistry(settings().mlflow_uri).versions(recipe.model_name)
    except RegistryError as error:
        say(f"WARNING: {recipe.name}: nothing can be reused, for {error}")
        return None
    for found in versions:
        tags = found.tags
        if wanted.items() <= tags.items() and _is_whole(tags["weights"], tags["weights_sha256"]):
            steps, seconds = int(tags["steps"]), float(tags["seconds"])
            return found, TrainingResult(
                weights=tags["weights"],
                steps=steps,
                seconds=seconds,
                history=(),
                parts=tuple(Part(**part) for part in json.loads(tags.get("training_parts", "[]"))),
                finished=True,
            )
    return None


def may_be_trained(recipes: Iterable[Recipe]) -> bool:
    """Tell whether the registry has all of these recipes by today's code, whatever the patches."""
    try:
        known = ModelRegistry(settings().mlflow_uri).list_models() if settings().has_mlflow else {}
    except RegistryError:
        return False
    wanted = {(r.model_name, r.fingerprint, code_fingerprint(r.architecture)) for r in recipes}
    return wanted <= {
        (name, found.tags.get("recipe_fingerprint"), found.tags.get("code_fingerprint"))
        for name, versions in known.items()
        for found in versions
    }


def are_trained(
    recipes: Iterable[Recipe], versions: Mapping[str, StoreVersion], precision: PrecisionChoice
) -> bool:
    """Tell whether `find_trained` finds all of these, each after what it starts from."""
    weights: dict[str, str] = {}
    for recipe in recipes:
        start = weights[recipe.init_from.recipe] if recipe.init_from is not None else None
        known = find_trained(recipe, versions[recipe.name], start, precision)
        if known is None:
            return False
        _, result = known
        weights[recipe.name] = result.weights
    return True


@task(
    name="register",
    task_run_name="register {recipe.name}",
    retries=2,
    retry_delay_seconds=3,
    cache_policy=NO_CACHE,
)
@timed("register")
def register_network(
    recipe: Recipe,
    version: StoreVersion,
    result: TrainingResult,
    scores: Mapping[str, Comparison],
    run: TrackedRun,
    initial_weights: str | None,
) -> tuple[RegisteredVersion, str]:
    """Register trained weights, unless the very same are registered, and apply the alias rule."""
    registry = ModelRegistry(settings().mlflow_uri)
    name = recipe.model_name
    same = {"weights_sha256": files.sha256_of(result.weights)}
    same |= training_tags(recipe, version, initial_weights)
    found = registry.find_version(name, same)
    what = "registered"
    if found is not None:
        what = "nothing new to register,"
    else:
        if run.run_id is None:
            raise RegistryError("the tracking server did not take the run")
        _, network = load_network(result.weights)
        table = None if recipe.blind else quantization_table(recipe.qfs[0])
        with _exporting:
            export = with_loss(export_network(network, table), next(iter(scores)), recipe)
            found = registry.register(
                export.module,
                name=name,
                input_example=export.input_example,
                tags={**_tags(recipe, version, result, scores), **same, **export.tags},
                run_id=run.run_id,
                description=model_card(
                    CardFacts(
                        name=name,
                        recipe=recipe,
                        network=network,
                        version=version,
                        result=result,
                        scores=scores,
                    )
                ),
                served=export.served,
            )
    comparison = next(iter(scores.values()))
    scored = gate_scores(comparison.restored, recipe.evaluation_qfs)
    jpeg = gate_scores(comparison.jpeg, recipe.evaluation_qfs)
    rescore_champion(registry, name, jpeg, recipe)
    decision = registry.promotions.promote(name, found.version, scored, jpeg=jpeg)
    say(f"{what} {found.uri} is @{decision.alias}: {decision.reason}")
    return found, decision.alias


def with_loss(export: NetworkExport, dataset: str, recipe: Recipe) -> NetworkExport:
    """Measure what a program loses by bfloat16, if this processor computes in it.

    At the lowest and the highest of its quality factors that photographs are restored at.
    """
    if choose_precision("auto", torch.device("cpu")) == "float32":
        return export
    sources = references.list_images(dataset, root=settings().datasets_root, purpose="evaluate")
    images = middles(load_images(sources[:LOSS_IMAGES]))
    qfs = [qf for qf in sorted(recipe.qfs) if qf <= GOOD_QF] or recipe.qfs
    loss = program_loss_db(export, images, sorted({qfs[0], qfs[-1]}))
    return replace(export, facts=replace(export.facts, bfloat16_loss_db=loss))


def rescore_champion(registry: ModelRegistry, name: str, jpeg: GateScores, recipe: Recipe) -> None:
    """Score the standing champion on the dataset and QFs of `jpeg`, if it was scored on others.

    `jpeg` is recorded with its scores.
    """
    champion = registry.champion(name)
    known = scores_of(champion)
    if champion is None or (known is not None and known.label == jpeg.label):
        return
    sources = references.list_images(
        jpeg.dataset, root=settings().datasets_root, purpose="evaluate"
    )
    protocol = protocol_of(recipe.patches.degradation)
    restorer = open_network(champion.uri).restorer
    result = evaluate(restorer, load_images(sources), jpeg.dataset, jpeg.qfs, protocol)
    scored = gate_scores(result, jpeg.qfs)
    registry.promotions.promote(name, champion.version, scored, jpeg=jpeg)
    say(f"{champion.uri} was scored on {jpeg.label} as well, to be compared")


def parts_json(result: TrainingResult) -> str:
    """Return on what, and in which precision, a training's steps were taken, as JSON."""
    return json.dumps([asdict(part) for part in result.parts])


def _is_whole(weights: str, sha256: str) -> bool:
    try:
        return files.sha256_of(weights) == sha256
    except OSError:
        return False


def _tags(
    recipe: Recipe,
    version: StoreVersion,
    result: TrainingResult,
    scores: Mapping[str, Comparison],
) -> dict[str, str]:
    means = {
        dataset: [comparison.restored.row(qf).as_json_row() for qf in recipe.evaluation_qfs]
        for dataset, comparison in scores.items()
    }
    return {
        "recipe": recipe.name,
        "recipe_settings": json.dumps(asdict(recipe)),
        "architecture": recipe.architecture,
        "qfs": " ".join(map(str, recipe.qfs)),
        "store_version": version.name,
        "dataset": version.dataset,
        "dataset_fingerprint": version.dataset_fingerprint,
        "protocol": PROTOCOL,
        "git_commit": git_commit(),
        "steps": str(result.steps),
        "seconds": f"{result.seconds:.1f}",
        "precision": result.precision,
        "training_parts": parts_json(result),
        "weights": result.weights,
        "scores": json.dumps(means),
    }
