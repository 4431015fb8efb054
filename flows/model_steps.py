"""Prefect tasks that train, score and register one network, and the order they come in."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import reporting
from flows.console import counted
from flows.networks import open_network, restorer_of
from flows.progress import progress, say
from flows.runtime import is_transient
from flows.settings import git_commit, settings
from pipeline import datasets
from pipeline.cluster import cluster_gpus
from pipeline.evaluate import compare, evaluate, load_images
from pipeline.export import export_network
from pipeline.recipes import Recipe
from pipeline.scores import Comparison, MeanScore
from pipeline.train_job import run_training
from pipeline.training_job import Record, TrainingJob, TrainingResult
from pipeline.training_start import share_of_batch
from pipeline.weights import load_network
from storage import files
from storage.model_registry import (
    GateScores,
    ModelRegistry,
    RegisteredVersion,
    RegistryError,
    scores_of,
)
from storage.patch_store import StoreVersion
from storage.tracking import TrackedRun

PROTOCOL = "matlab-studio-y, grey JPEG by Pillow defaults, rounded, no crop"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """One recipe, trained, scored and registered."""

    recipe: str
    qf: int
    weights: str
    """URI of the safetensors file."""
    steps: int
    seconds: float
    """Training time, over all interruptions."""
    scores: dict[str, Comparison]
    """Dataset reference -> the network beside JPEG."""
    picture: str
    """Path of a before/after picture."""
    model: str | None
    """`models:/NAME/VERSION`; None if it could not be registered."""
    alias: str | None
    """`champion` or `challenger`."""
    note: str = ""
    """What went wrong on the way, if something did."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What `train_and_register` needs to know beyond the recipe and the store."""

    evaluate_on: tuple[str, ...]
    """Dataset references; the first is the gate set."""
    workers: int
    fresh: bool = False
    """Forget earlier checkpoints of the same training."""


def train_and_register(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    initial_weights: str | None = None,
) -> TrainedModel:
    """Train one recipe, score it on every set, and register it; all of it recorded in `run`."""
    reporting.log_inputs(run, recipe, version)
    result = train_network(recipe, version, run, plan, initial_weights)
    scores = {
        dataset: score_network(recipe, result.weights, dataset) for dataset in plan.evaluate_on
    }
    picture = reporting.log_scores(run, recipe, scores, restorer_of(result.weights))
    model, alias, note = None, None, ""
    try:
        registered, alias = register_network(recipe, version, result, scores, run)
        model = registered.uri
    except RegistryError as error:
        note = f"{recipe.name} was not registered ({error}); its weights are at {result.weights}"
        say(f"WARNING: {note}")
    return TrainedModel(
        recipe=recipe.name,
        qf=recipe.qf,
        weights=result.weights,
        steps=result.steps,
        seconds=result.seconds,
        scores=scores,
        picture=str(picture),
        model=model,
        alias=alias,
        note=note,
    )


@task(name="train", task_run_name="train {recipe.name}", cache_policy=NO_CACHE)
def train_network(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    initial_weights: str | None,
) -> TrainingResult:
    """Train with Ray Train; a training that was interrupted goes on where it was."""
    name = training_name(recipe, version, initial_weights)
    checkpoints = files.join(settings().checkpoints_root, name)
    if plan.fresh:
        files.delete(checkpoints)
    job = TrainingJob(
        recipe=recipe,
        store=version.uri,
        version=version.number,
        checkpoints=checkpoints,
        initial_weights=initial_weights,
    )
    with progress(f"train {recipe.name}") as update:

        def record(seen: Record) -> None:
            run.log_metrics(
                {
                    "loss": seen.loss,
                    "learning_rate": seen.lr,
                    "samples_per_second": seen.samples_per_s,
                },
                seen.step,
            )
            speed = f"{seen.samples_per_s:,.0f} patches/s"
            update(seen.step, recipe.steps, f"loss {seen.loss:.6f}, {speed}")

        result = run_training(
            job,
            workers=plan.workers,
            use_gpu=cluster_gpus() >= plan.workers,
            name=name,
            storage=files.join(settings().checkpoints_root, "ray"),
            on_record=record,
        )
    say(f"trained {recipe.name}: {result.steps} steps in {result.seconds:.0f} s")
    return result


@task(
    name="evaluate",
    task_run_name="evaluate {recipe.name} on {dataset}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def score_network(recipe: Recipe, weights: str, dataset: str) -> Comparison:
    """Score trained weights beside JPEG at the recipe's quality factor."""
    sources = datasets.list_images(dataset, root=settings().datasets_root, purpose="evaluate")
    with progress(f"evaluate {recipe.name} on {dataset}") as update:
        images = counted(load_images(sources), len(sources), update)
        comparison = compare(restorer_of(weights), images, dataset, [recipe.qf])
    reporting.scores_artifact(recipe.name, comparison)
    return comparison


@task(
    name="register",
    task_run_name="register {recipe.name}",
    retries=2,
    retry_delay_seconds=3,
    cache_policy=NO_CACHE,
)
def register_network(
    recipe: Recipe,
    version: StoreVersion,
    result: TrainingResult,
    scores: dict[str, Comparison],
    run: TrackedRun,
) -> tuple[RegisteredVersion, str]:
    """Register trained weights, unless the very same are registered, and apply the alias rule."""
    registry = ModelRegistry(settings().mlflow_uri)
    name = f"qfactory-{recipe.architecture}-qf{recipe.qf}"
    weights_sha256 = hashlib.sha256(files.read_bytes(result.weights)).hexdigest()
    found = registry.find_version(name, {"weights_sha256": weights_sha256})
    if found is not None:
        say(f"{found.uri} holds the same weights already; nothing new was registered")
    else:
        if run.run_id is None:
            raise RegistryError("the tracking server did not take the run")
        _, network = load_network(result.weights)
        export = export_network(network)
        found = registry.register(
            export.module,
            name=name,
            input_example=export.input_example,
            tags={
                **_tags(recipe, version, result, scores),
                "weights_sha256": weights_sha256,
                "receptive_field": str(network.receptive_field),
                "multiple": str(network.multiple),
            },
            run_id=run.run_id,
            description=reporting.model_card(recipe, version, scores),
        )
    comparison = next(iter(scores.values()))
    rescore_champion(registry, name, comparison.restored.dataset, recipe.qf)
    decision = registry.promote(
        name,
        found.version,
        _gate_scores(comparison.restored.row(recipe.qf)),
        jpeg=_gate_scores(comparison.jpeg.row(recipe.qf)),
    )
    say(f"registered {found.uri} as @{decision.alias}: {decision.reason}")
    return found, decision.alias


def rescore_champion(registry: ModelRegistry, name: str, dataset: str, qf: int) -> None:
    """Score the standing champion on the gate set too, if it was promoted on another one."""
    champion = registry.champion(name)
    known = scores_of(champion)
    if champion is None or (known is not None and known.dataset == dataset):
        return
    sources = datasets.list_images(dataset, root=settings().datasets_root, purpose="evaluate")
    result = evaluate(open_network(champion.uri), load_images(sources), dataset, [qf])
    registry.promote(name, champion.version, _gate_scores(result.row(qf)))
    say(f"{champion.uri} was scored on {dataset} as well, to be compared")


def check_batches(recipes: Iterable[Recipe], workers: int) -> None:
    """Raise ValueError, which lists what would do, unless all batches divide among the workers."""
    for recipe in recipes:
        for stage in recipe.stages:
            share_of_batch(stage.batch, workers)


def training_name(recipe: Recipe, version: StoreVersion, initial_weights: str | None) -> str:
    """Return a name that is the same for the same training, and for no other."""
    parts = [recipe.fingerprint, version.content]
    if initial_weights is not None:
        parts.append(hashlib.sha256(files.read_bytes(initial_weights)).hexdigest())
    return f"{recipe.name}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _gate_scores(row: MeanScore) -> GateScores:
    return GateScores(
        dataset=row.dataset,
        qf=row.qf,
        psnr=row.metrics["psnr"],
        ssim=row.metrics["ssim"],
        psnr_b=row.metrics["psnr_b"],
    )


def _tags(
    recipe: Recipe,
    version: StoreVersion,
    result: TrainingResult,
    scores: dict[str, Comparison],
) -> dict[str, str]:
    means = {
        dataset: comparison.restored.row(recipe.qf).as_json_row()
        for dataset, comparison in scores.items()
    }
    return {
        "recipe": recipe.name,
        "recipe_fingerprint": recipe.fingerprint,
        "recipe_settings": json.dumps(asdict(recipe)),
        "store_version": version.name,
        "dataset": version.dataset,
        "dataset_fingerprint": version.dataset_fingerprint,
        "protocol": PROTOCOL,
        "git_commit": git_commit(),
        "steps": str(result.steps),
        "weights": result.weights,
        "scores": json.dumps(means),
    }
