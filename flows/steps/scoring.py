"""A trained network is scored on every set, once, and registered with its scores."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from typing import Literal

from flows.console import counted
from flows.planning.named_networks import restorer_of
from flows.runtime import progress, retried_task, say
from flows.settings import settings
from flows.steps import recording
from flows.steps.registration import register_network
from flows.steps.training import TrainingPlan, gpus_a_worker
from pipeline.cluster import may_grow
from pipeline.datasets import references
from pipeline.datasets.references import SourceImage
from pipeline.datasets.sources import scan_images
from pipeline.evaluation.on_cluster import compare_on_cluster
from pipeline.evaluation.protocol import compare, load_images
from pipeline.evaluation.scores import Comparison, from_json, to_json
from pipeline.images.degrade import protocol_of
from pipeline.networks.code_fingerprint import code_fingerprint, evaluation_fingerprint
from pipeline.networks.devices import best_device
from pipeline.networks.restorer import Restorer, network_restorer
from pipeline.networks.weights import load_network
from pipeline.recipes import Recipe
from pipeline.timings import timed
from pipeline.training.job import Record, TrainingResult
from storage import files
from storage.files import StoreError
from storage.patches.versions import StoreVersion
from storage.registry.model_registry import RegisteredVersion, RegistryError
from storage.tracking.tracked_run import TrackedRun


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """One recipe, trained, scored and registered."""

    recipe: str
    architecture: str
    """A name in models.ARCHITECTURES."""
    state: Literal["trained", "reused"]
    """Whether its weights were made now or found in the registry."""
    weights: str
    """URI of the safetensors file."""
    steps: int
    seconds: float
    """Training time, over all interruptions."""
    history: tuple[Record, ...]
    """How the training went; nothing for weights that were found in the registry."""
    scores: dict[str, Comparison]
    """Dataset reference -> the network beside JPEG."""
    picture: str
    """Path of a before/after picture."""
    model: str | None
    """`models:/NAME/VERSION`; None if it was not to be, or could not be registered."""
    alias: str | None
    """`champion` or `challenger`."""
    note: str = ""
    """What went wrong on the way, if something did."""
    training_run: str | None = None
    """MLflow's id of the run that trained it; None if that was not recorded."""


def score_and_register(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    result: TrainingResult,
    initial_weights: str | None,
    reused: RegisteredVersion | None = None,
) -> TrainedModel:
    """Score trained weights on every set, and register them; all of it recorded in `run`.

    `reused` is the registered version that they are of, None for weights that were made now.
    """
    gpus = gpus_a_worker(plan) if may_grow() else 0
    scores = {
        dataset: score_network(recipe, result.weights, dataset, plan.stop, gpus)
        for dataset in plan.evaluate_on
    }
    with timed("draw pictures"):
        picture = recording.log_scores(run, recipe, scores, restorer_of(result.weights))
    model, alias, note = None, None, ""
    try:
        if plan.register:
            registered, alias = register_network(
                recipe, version, result, scores, run, initial_weights
            )
            model = registered.uri
    except RegistryError as error:
        note = f"{recipe.name} was not registered ({error}); its weights are at {result.weights}"
        say(f"WARNING: {note}")
    return TrainedModel(
        recipe=recipe.name,
        architecture=recipe.architecture,
        state="reused" if reused is not None else "trained",
        weights=result.weights,
        steps=result.steps,
        seconds=result.seconds,
        history=result.history,
        scores=scores,
        picture=str(picture),
        model=model,
        alias=alias,
        note=note,
        training_run=(reused or run).run_id,
    )


@retried_task("evaluate", run_name="evaluate {recipe.name} on {dataset}")
@timed("score")
def score_network(
    recipe: Recipe, weights: str, dataset: str, stop: Event, gpus: float = 0
) -> Comparison:
    """Score trained weights beside JPEG, at the quality factors and degradation of the recipe.

    On a cluster that was joined tasks do it, an image each with at most one of the `gpus` that a
    training worker has, beside the trainings; else this process does. What was scored before by the
    same protocol, on images of the same content, is not again.
    """
    sources = references.list_images(dataset, root=settings().datasets_root, purpose="evaluate")
    kept = scores_file(weights, recipe, dataset, sources)
    comparison = kept_scores(kept)
    if comparison is not None:
        say(f"{recipe.name} was scored on these images of {dataset}: the scores are reused")
    else:
        qfs, protocol = recipe.evaluation_qfs, protocol_of(recipe.patches.degradation)
        with progress(f"evaluate {recipe.name} on {dataset}", stop) as update:
            if may_grow():
                _, network = load_network(weights)
                comparison = compare_on_cluster(
                    network,
                    sources,
                    dataset,
                    qfs,
                    protocol,
                    gpus=min(1.0, gpus),
                    on_image=lambda done: update(done, len(sources)),
                    stop=stop,
                )
            else:
                restorer = stoppable(weights, stop)
                images = counted(load_images(sources), len(sources), update)
                comparison = compare(restorer, images, dataset, qfs, protocol)
        keep_scores(kept, comparison)
    recording.scores_artifact(recipe.name, comparison, recipe.architecture)
    return comparison


def scores_file(weights: str, recipe: Recipe, dataset: str, sources: Sequence[SourceImage]) -> str:
    """Return the URI, beside the weights, where a recipe's scores on a set's images are kept.

    It is another one for other weights or images, another protocol, and other code.
    """
    images = [(image.name, image.sha256 or image.reason) for image in scan_images(sources)]
    decisive = [
        dataset,
        files.sha256_of(weights),
        code_fingerprint(recipe.architecture),
        evaluation_fingerprint(),
        protocol_of(recipe.patches.degradation),
        recipe.evaluation_qfs,
        images,
    ]
    digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
    return f"{weights.rpartition('/')[0]}/scores-{digest[:16]}.json"


def kept_scores(file: str) -> Comparison | None:
    """Return the scores of a file; None if there is none that can be read."""
    try:
        return from_json(files.read_bytes(file))
    except (OSError, ValueError):
        return None


def keep_scores(file: str, comparison: Comparison) -> None:
    """Write what `kept_scores` reads; where that cannot be, the next study scores again."""
    with suppress(OSError, StoreError):
        files.write_bytes(file, to_json(comparison))


def stoppable(weights: str, stop: Event) -> Restorer:
    """Return a function that restores luma and ends with CancelledError once `stop` is set.

    It looks before every layer: a large network takes minutes for one image on a CPU.
    """
    _, network = load_network(weights)

    def check(*_: object) -> None:
        if stop.is_set():
            raise CancelledError(f"{weights}: stopped")

    for module in network.modules():
        module.register_forward_pre_hook(check)
    return network_restorer(network, best_device())
