"""One recipe from its patches to the registry: reused or trained, scored, registered."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Literal

from prefect.runtime import flow_run, task_run

from flows.planning.named_networks import restorer_of
from flows.runtime import one_at_a_time, progress, retried_task, say
from flows.settings import settings
from flows.steps import recording
from flows.steps.registration import parts_json, register_network
from flows.steps.reuse import find_trained
from flows.steps.scoring import score_network
from pipeline.cluster import cluster_gpus, may_grow
from pipeline.evaluation.scores import Comparison
from pipeline.networks.devices import PrecisionChoice
from pipeline.recipes import Recipe
from pipeline.timings import spend, timed
from pipeline.training.capacity import Room
from pipeline.training.job import Record, TrainingJob, TrainingResult
from pipeline.training.ray_train import cluster_room, run_training
from pipeline.training.start import training_name
from storage import files
from storage.checkpoints import checkpoint_steps
from storage.patches.versions import StoreVersion
from storage.registry.model_registry import RegistryError
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


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What the steps need to know beyond the recipe and the store."""

    evaluate_on: tuple[str, ...]
    """Dataset references; the first is the gate set."""
    workers: int
    min_workers: int | None = None
    """How few of the workers a training begins or goes on with; None waits for all of them."""
    threads: int | None = None
    """CPU threads a worker; None takes what `pipeline.training.capacity.room_for` says."""
    accelerator: str = "auto"
    """`auto`, `cpu`, `gpu`, or Ray's name of a type of GPU; see `gpus_a_worker`."""
    gpus_per_worker: float = 1.0
    """GPUs of a worker that has one; less than 1 only for a single worker."""
    precision: PrecisionChoice = "auto"
    """See `pipeline.training.job.TrainingJob`; when asked for, it is what reused weights have."""
    fresh: bool = False
    """Forget earlier checkpoints of the same training."""
    stop_after_s: float | None = None
    """Seconds after which training stops with a checkpoint, finished or not."""
    validation: Mapping[str, StoreVersion] = field(default_factory=dict)
    """Recipe's name -> the patches of the validation set that it looks at."""
    register: bool = True
    """Whether the networks go into the registry."""
    stop: Event = field(default_factory=Event)
    """Another thread sets it to end the work."""

    def __post_init__(self) -> None:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers {self.min_workers} of {self.workers} workers: give fewer"
            )
        if self.workers > 1 and self.gpus_per_worker < 1:
            raise ValueError(
                f"{self.workers} workers with {self.gpus_per_worker:g} GPU each: NCCL refuses two "
                "workers of a training on one GPU; give --workers 1 or whole GPUs"
            )

    @property
    def accelerator_type(self) -> str | None:
        """The type of GPU that was asked for, if one was."""
        return None if self.accelerator in ("auto", "cpu", "gpu") else self.accelerator


def reuse_or_train(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    initial_weights: str | None = None,
) -> TrainedModel:
    """Score and register a recipe, its weights out of the registry if they are there."""
    recording.log_inputs(run, recipe, version)
    known = None
    if not plan.fresh:
        known = find_trained(recipe, version, initial_weights, plan.precision)
    if known is None:
        result = train_network(recipe, version, run, plan, initial_weights)
        return score_and_register(recipe, version, run, plan, result, initial_weights)
    found, result = known
    say(f"reused {recipe.name}: {found.uri} has the same recipe, patches, code and start")
    run.log_tags({"reused": found.uri})
    made = score_and_register(recipe, version, run, plan, result, initial_weights, state="reused")
    return replace(made, training_run=found.run_id)


def score_and_register(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    result: TrainingResult,
    initial_weights: str | None,
    state: Literal["trained", "reused"] = "trained",
) -> TrainedModel:
    """Score trained weights on every set, and register them; all of it recorded in `run`."""
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
        state=state,
        weights=result.weights,
        steps=result.steps,
        seconds=result.seconds,
        history=result.history,
        scores=scores,
        picture=str(picture),
        model=model,
        alias=alias,
        note=note,
        training_run=run.run_id,
    )


@retried_task("train", run_name="train {recipe.name}")
@timed("start and end training workers")
def train_network(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    initial_weights: str | None,
) -> TrainingResult:
    """Train with Ray Train; a training that was interrupted goes on where it was.

    So does one that was tried before in this flow run, also with `plan.fresh`. Another run that
    trains the same is waited for, and what it has done is not done again.
    """
    name = training_name(recipe, version, initial_weights)
    checkpoints = files.join(settings().checkpoints_root, name)
    with one_at_a_time(f"training {recipe.name}", f"{checkpoints}.lease", plan.stop):
        if plan.fresh and task_run.run_count <= 1 and flow_run.run_count <= 1:
            files.delete(checkpoints)
        result = _train(recipe, version, run, plan, initial_weights, name, checkpoints)
    run.log_tags({"precision": result.precision, "training_parts": parts_json(result)})
    said = "trained" if result.finished else "stopped"
    say(f"{said} {recipe.name}: {result.steps} steps in {result.seconds:.0f} s, {result.precision}")
    return result


def _train(
    recipe: Recipe,
    version: StoreVersion,
    run: TrackedRun,
    plan: TrainingPlan,
    initial_weights: str | None,
    name: str,
    checkpoints: str,
) -> TrainingResult:
    validation = plan.validation.get(recipe.name)
    job = TrainingJob(
        recipe=recipe,
        store=version.uri,
        version=version.number,
        validation_store=validation and validation.uri,
        validation_version=validation and validation.number,
        checkpoints=checkpoints,
        initial_weights=initial_weights,
        stop_after_s=plan.stop_after_s,
        threads=plan.threads,
        precision=plan.precision,
    )
    begun = max(checkpoint_steps(checkpoints), default=0)
    with progress(f"train {recipe.name}", plan.stop) as update:
        if begun:
            update(begun, recipe.steps, f"goes on from step {begun:,}")

        before = 0.0

        def record(seen: Record) -> None:
            nonlocal before
            if seen.step <= begun:
                before = seen.seconds
            values = {
                "loss": seen.loss,
                "learning_rate": seen.lr,
                "samples_per_second": seen.samples_per_s,
            }
            if seen.validation_psnr is not None:
                values["validation_psnr"] = seen.validation_psnr
            run.log_metrics(values, seen.step)
            speed = f"{seen.samples_per_s:,.0f} patches/s"
            if seen.step > begun:
                update(seen.step, recipe.steps, f"loss {seen.loss:.6f}, {speed}")

        result = run_training(
            job,
            workers=plan.workers,
            min_workers=plan.min_workers,
            gpus=gpus_a_worker(plan),
            accelerator_type=plan.accelerator_type,
            name=name,
            storage=files.join(settings().checkpoints_root, "ray"),
            on_record=record,
            on_notice=say,
            stop=plan.stop,
        )
    spend("train", result.seconds - before)
    return result


def gpus_a_worker(plan: TrainingPlan) -> float:
    """Return the GPUs, or the share of one, that each training worker asks for.

    What the plan asks for is asked for, whether or not the cluster has it yet. `auto` takes GPUs if
    the cluster has enough of them now.
    """
    if plan.accelerator == "cpu":
        return 0
    least = plan.min_workers or plan.workers
    if plan.accelerator == "auto" and cluster_gpus() < least * plan.gpus_per_worker:
        return 0
    return plan.gpus_per_worker


def room_of(plan: TrainingPlan) -> Room:
    """Return what the cluster holds of such trainings. Raises ValueError if not a single one."""
    return cluster_room(
        plan.workers,
        gpus=gpus_a_worker(plan),
        accelerator_type=plan.accelerator_type,
        threads=plan.threads,
    )
