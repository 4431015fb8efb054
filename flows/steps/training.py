"""The task that trains a network, what it asks the cluster for, and for how many there is room."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from threading import Event

from prefect.runtime import flow_run, task_run

from flows.runtime import one_at_a_time, progress, retried_task, say
from flows.settings import settings
from pipeline.cluster import cluster_gpus
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
from storage.tracking.tracked_run import TrackedRun


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
    validation = plan.validation.get(recipe.name)
    job = TrainingJob(
        recipe=recipe,
        store=version.uri,
        version=version.number,
        validation_store=validation and validation.uri,
        validation_version=validation and validation.number,
        checkpoints=files.join(settings().checkpoints_root, name),
        initial_weights=initial_weights,
        stop_after_s=plan.stop_after_s,
        threads=plan.threads,
        precision=plan.precision,
    )
    with one_at_a_time(f"training {recipe.name}", f"{job.checkpoints}.lease", plan.stop):
        if plan.fresh and task_run.run_count <= 1 and flow_run.run_count <= 1:
            files.delete(job.checkpoints)
        result = _train(job, name, run, plan)
    run.log_tags({"precision": result.precision, "training_parts": parts_json(result)})
    said = "trained" if result.finished else "stopped"
    say(f"{said} {recipe.name}: {result.steps} steps in {result.seconds:.0f} s, {result.precision}")
    return result


def _train(job: TrainingJob, name: str, run: TrackedRun, plan: TrainingPlan) -> TrainingResult:
    """Train, and tell MLflow, Prefect and the terminal how it goes."""
    recipe, begun = job.recipe, max(checkpoint_steps(job.checkpoints), default=0)
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


def parts_json(result: TrainingResult) -> str:
    """Return on what, and in which precision, a training's steps were taken, as JSON."""
    return json.dumps([asdict(part) for part in result.parts])


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
