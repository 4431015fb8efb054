"""The task that puts a trained network into the registry: exported, described, judged."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from threading import Lock

from flows.planning.beside_jpeg import gate_scores
from flows.planning.evaluated_images import images_of
from flows.planning.named_networks import open_network
from flows.reporting.model_cards import model_card
from flows.runtime import one_at_a_time, retried_task, say
from flows.settings import git_commit, settings
from flows.steps.recording import tell_made
from flows.steps.training import parts_json
from pipeline.evaluation.precision_loss import with_loss
from pipeline.evaluation.protocol import evaluate
from pipeline.evaluation.scores import Comparison
from pipeline.images.degrade import protocol_of
from pipeline.images.jpeg import quantization_table
from pipeline.networks.export import export_network
from pipeline.networks.weights import load_network
from pipeline.recipes import Recipe
from pipeline.timings import timed
from pipeline.training.job import TrainingResult
from pipeline.training.start import training_tags
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


@retried_task("register", run_name="register {recipe.name}", whatever=True)
@timed("register")
def register_network(
    recipe: Recipe,
    version: StoreVersion,
    result: TrainingResult,
    scores: Mapping[str, Comparison],
    run: TrackedRun,
    initial_weights: str | None,
) -> tuple[RegisteredVersion, str]:
    """Register trained weights, unless the very same are registered, and apply the alias rule.

    Another run that registers a version of the same model is waited for.
    """
    name = recipe.model_name
    lease = files.join(settings().checkpoints_root, f"{name}.lease")
    with one_at_a_time(f"registering {name}", lease):
        return _register(name, recipe, version, result, scores, run, initial_weights)


def _register(
    name: str,
    recipe: Recipe,
    version: StoreVersion,
    result: TrainingResult,
    scores: Mapping[str, Comparison],
    run: TrackedRun,
    initial_weights: str | None,
) -> tuple[RegisteredVersion, str]:
    registry = ModelRegistry(settings().mlflow_uri)
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
            images = images_of(next(iter(scores)), first=LOSS_IMAGES)
            export = with_loss(export_network(network, table), images, recipe.qfs)
            found = registry.register(
                export.module,
                name=name,
                input_example=export.input_example,
                tags={**_tags(recipe, version, result, scores), **same, **export.facts.tags},
                run_id=run.run_id,
                description=model_card(
                    name=name,
                    recipe=recipe,
                    network=network,
                    version=version,
                    result=result,
                    scores=scores,
                ),
                served=export.served,
            )
        tell_made(
            f"model://{name}", [version.uri], version=found.version, recipe=recipe.name,
            store_version=version.number,
        )  # fmt: skip
    comparison = next(iter(scores.values()))
    scored = gate_scores(comparison.restored, recipe.evaluation_qfs)
    jpeg = gate_scores(comparison.jpeg, recipe.evaluation_qfs)
    rescore_champion(registry, name, jpeg, recipe)
    decision = registry.promotions.promote(name, found.version, scored, jpeg=jpeg)
    say(f"{what} {found.uri} is @{decision.alias}: {decision.reason}")
    return found, decision.alias


def rescore_champion(registry: ModelRegistry, name: str, jpeg: GateScores, recipe: Recipe) -> None:
    """Score the standing champion on the dataset and QFs of `jpeg`, if it was scored on others.

    `jpeg` is recorded with its scores.
    """
    champion = registry.champion(name)
    known = scores_of(champion)
    if champion is None or (known is not None and known.label == jpeg.label):
        return
    protocol = protocol_of(recipe.patches.degradation)
    restorer = open_network(champion.uri).restorer
    result = evaluate(restorer, images_of(jpeg.dataset), jpeg.dataset, jpeg.qfs, protocol)
    scored = gate_scores(result, jpeg.qfs)
    registry.promotions.promote(name, champion.version, scored, jpeg=jpeg)
    say(f"{champion.uri} was scored on {jpeg.label} as well, to be compared")


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
