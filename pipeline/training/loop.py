"""Train a recipe: pure torch, on one process or as one of several, from the last checkpoint on.

Every few steps a look at the loss, the clock and the others. On a CPU everything is a function of
the job: the same job gives the same losses and weights bit for bit, whether or not it was
interrupted, with the same number of threads and workers. Other numbers take the same steps on the
same patches and only round otherwise, which in float32 is 1e-7 after a step and grows slowly; but a
layer that normalises its batch sees a worker's share of it alone.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from threading import Event

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.loading.loader import PatchLoader
from pipeline.networks.devices import Precision, lay_out, processor_name
from pipeline.networks.weights import WEIGHTS, save_weights
from pipeline.prometheus import (
    CHECKPOINT_TIME,
    CHECKPOINTS,
    DATA_WAIT,
    SAMPLES,
    STEPS,
    Counter,
    count,
)
from pipeline.recipes.base import Recipe, Stage
from pipeline.training.failure_messages import first_bad_batch
from pipeline.training.job import (
    ALONE,
    Part,
    Record,
    TrainingError,
    TrainingJob,
    TrainingResult,
    World,
)
from pipeline.training.optimization import (
    Plateau,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
    stage_spans,
)
from pipeline.training.start import (
    agreed_checkpoint,
    agreed_precision,
    check_identity,
    fitting_version,
    initial_network,
    job_identity,
)
from pipeline.training.step import StageStep, WeightAverage
from pipeline.training.validation import Validation
from storage import files
from storage.checkpoints import Checkpoint, prune_checkpoints, save_checkpoint
from storage.patches.versions import StoreVersion

SYNC_STEPS = 10  # steps between looks at the clock, at the loss, and at the other workers
RECORDS = 200  # about as many records as a training gives

OnRecord = Callable[[Record], None]

logger = logging.getLogger(__name__)


def train(
    job: TrainingJob,
    *,
    world: World = ALONE,
    on_record: Callable[[Record], None] = lambda record: None,
    stop: Event | None = None,
) -> TrainingResult:
    """Train a recipe to its end; continue where an earlier call stopped.

    After `stop_after_s`, or once another thread has set `stop` on any rank, it stops with a
    checkpoint.

    With `world.size` above 1 torch's default process group must be there; every rank makes the
    same call. Rank 0 writes checkpoints and calls `on_record`, first with the records of the calls
    before. Raises StoreError for a store that is unusable or does not fit, CheckpointError for
    checkpoints that are damaged or of another job, TrainingError for a loss that is not finite.
    """
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    store = fitting_version(job.recipe, job.store, number=job.version)
    cuda = world.device.type == "cuda"
    with torch.random.fork_rng(devices=[world.device] if cuda else []):
        return Training(job, store, world, on_record, stop or Event()).run()


def record_steps(recipe: Recipe) -> int:
    """Return after how many steps a record is due: a multiple of SYNC_STEPS, at most 250."""
    return SYNC_STEPS * min(25, max(1, recipe.steps // (SYNC_STEPS * RECORDS)))


class Training:
    """One call of `train`: the network, its optimiser, and where it has got to."""

    def __init__(
        self,
        job: TrainingJob,
        store: StoreVersion,
        world: World,
        on_record: OnRecord,
        stop: Event,
    ) -> None:
        self.stop = stop
        self.job, self.recipe, self.store, self.world = job, job.recipe, store, world
        self.on_record = on_record
        self.weights = files.join(job.checkpoints, WEIGHTS)
        self.cuda = world.device.type == "cuda"
        self.network = initial_network(job)
        self.identity = job_identity(job, store)
        self.step = 0
        self.stopped = False
        self.tags = {
            "recipe": self.recipe.name,
            "architecture": self.recipe.architecture,
            "dataset": store.dataset,
        }
        self.history: list[Record] = []
        self.parts_before: list[Part] = []
        self.seconds_before = 0.0
        self.loss_sum, self.loss_steps = 0.0, 0
        self.data_wait_s = 0.0
        self.plateau = Plateau()
        self.validation_psnr: float | None = None
        self.optimizer_state: dict[str, Tensor] = {}
        checkpoint = agreed_checkpoint(job.checkpoints, world)
        if checkpoint:
            self._resume(checkpoint)
        self.first_step = self.step
        self.processor = processor_name(world.device)
        self.precision: Precision = self._agree_on_precision()
        self.network.to(world.device)
        lay_out(self.network)
        if self.cuda:
            torch.backends.cudnn.benchmark = True  # shapes stay the same within a stage
        self.average: WeightAverage | None = None
        if self.recipe.ema_decay is not None:
            self.average = WeightAverage(self.network, self.recipe.ema_decay)
            if checkpoint:
                self.average.restore(checkpoint.tensors["average"])
        self.model: nn.Module = self.network.train()
        if world.size > 1:
            self.model = DistributedDataParallel(self.network)

    def run(self) -> TrainingResult:
        """Train from where the checkpoint left off to the end, until time is up or until `stop`."""
        self.started = self.saved_at = self.recorded_at = time.monotonic()
        self.recorded_step = self.step
        for record in self.history if self.world.rank == 0 else ():
            self.on_record(record)
        for index, stage, first, end in stage_spans(self.recipe):
            if self.step < end and not self.stopped:
                self._run_stage(index, stage, first, end)
        if self.world.rank == 0:
            self._save_weights()
        return TrainingResult(
            weights=self.weights,
            steps=self.step,
            seconds=self._seconds(),
            history=tuple(self.history),
            parts=self._parts(),
            finished=self.step == self.recipe.steps,
        )

    def _run_stage(self, index: int, stage: Stage, first: int, end: int) -> None:
        steps = StageStep(
            self.recipe,
            stage,
            self.world,
            self.network,
            self.model,
            self.average,
            self.precision,
        )
        self.optimizer = steps.optimizer
        if self.step > first:
            restore_optimizer(self.optimizer, self.optimizer_state)
        else:
            self.plateau = Plateau()
        loader = PatchLoader(
            self.store,
            self.recipe.qfs,
            stage.batch,
            seed=(self.recipe.seed, index),
            rank=self.world.rank,
            world=self.world.size,
            frequent_qfs=self.recipe.frequent_qfs,
            side=stage.side,
            share=stage.share,
            held_out=self.recipe.validation_share,
            pin_memory=self.cuda,
            pairs_on_device=self.cuda,
        )
        validation = (
            Validation(self.job, self.store, stage, self.world) if stage.validate_every else None
        )
        losses: list[Tensor] = []
        rows: list[np.ndarray] = []
        alone = self.world.size == 1  # then nobody has to be asked before it stops
        with closing(loader.batches(self.step - first)) as batches:
            while self.step < end and not self.stopped:
                lr = learning_rate(stage, self.step - first) * self.plateau.scale
                asked = time.monotonic()
                batch = next(batches)
                self.data_wait_s += time.monotonic() - asked
                losses.append(steps.take(self.step, lr, batch))
                rows.append(batch.rows)
                self.step += 1
                if validation and (self.step - first) % stage.validate_every == 0:
                    self._validate(stage, validation)
                if self.step == end or self.step % SYNC_STEPS == 0 or (alone and self._is_late()):
                    self._synchronise(stage, lr, losses, rows, at_end=self.step == end)
                    losses.clear()
                    rows.clear()

    def _validate(self, stage: Stage, validation: Validation) -> None:
        psnr = validation.psnr(self.network, self._given_weights())
        self.validation_psnr = psnr if math.isfinite(psnr) else None
        if stage.schedule == "plateau":
            self.plateau.update(stage, psnr)

    def _synchronise(
        self,
        stage: Stage,
        lr: float,
        losses: list[Tensor],
        rows: list[np.ndarray],
        *,
        at_end: bool,
    ) -> None:
        """Agree with the other ranks on the loss and on stopping; record and save when due."""
        waited = time.monotonic() - self.saved_at
        unsaved = self.world.rank == 0 and waited >= self.job.checkpoint_every_s
        total = torch.stack(losses).double().sum()
        totals = torch.stack([total, *torch.tensor([self._is_late(), unsaved]).to(total)])
        if self.world.size > 1:
            dist.all_reduce(totals)
        loss, stops, saves = totals.tolist()
        self.loss_sum += loss / self.world.size
        self.loss_steps += len(losses)
        self._count(STEPS, len(losses))
        self._count(SAMPLES, len(losses) * stage.batch)
        self._count(DATA_WAIT, self.data_wait_s)
        self.data_wait_s = 0.0
        self.stopped = stops > 0
        if not math.isfinite(loss):
            raise self._diverged(first_bad_batch(self.store, self.world, self.step, losses, rows))
        if at_end or self.step % record_steps(self.recipe) == 0:
            self._record(stage, lr)
        if at_end or self.stopped or saves > 0:
            self._save()

    def _record(self, stage: Stage, lr: float) -> None:
        now = time.monotonic()
        samples = (self.step - self.recorded_step) * stage.batch
        record = Record(
            step=self.step,
            loss=self.loss_sum / self.loss_steps,
            lr=lr,
            samples_per_s=samples / max(1e-9, now - self.recorded_at),
            seconds=self._seconds(),
            validation_psnr=self.validation_psnr,
        )
        self.validation_psnr = None
        self.recorded_at, self.recorded_step = now, self.step
        self.loss_sum, self.loss_steps = 0.0, 0
        self.history.append(record)
        if self.world.rank == 0:
            self.on_record(record)

    def _save_weights(self) -> None:
        """Publish the weights beside the checkpoints, to be scored at any time."""
        save_weights(self.weights, self._given_weights(), self.recipe, self.step)

    def _given_weights(self) -> Mapping[str, Tensor]:
        """Return the weights that count: the moving average if there is one."""
        return self.average.tensors if self.average is not None else self.network.state_dict()

    def _save(self) -> None:
        """Publish a checkpoint; every rank looks at its weights, the same on all, first."""
        model = self.network.state_dict()
        if not all(bool(value.isfinite().all()) for value in model.values()):
            raise self._diverged("a weight is not finite")
        if self.world.rank != 0:
            return
        state = {
            "identity": self.identity,
            "seconds": self._seconds(),
            "loss": [self.loss_sum, self.loss_steps],
            "history": [asdict(record) for record in self.history],
            "parts": [asdict(part) for part in self._parts()],
            "plateau": asdict(self.plateau) if math.isfinite(self.plateau.best) else {},
            "validation_psnr": self.validation_psnr,
        }
        tensors = {"model": model, "optimizer": optimizer_tensors(self.optimizer)}
        if self.average is not None:
            tensors["average"] = self.average.tensors
        began = time.monotonic()
        save_checkpoint(self.job.checkpoints, self.step, tensors, state)
        self._save_weights()
        prune_checkpoints(self.job.checkpoints)
        self.saved_at = time.monotonic()
        self._count(CHECKPOINTS, 1)
        self._count(CHECKPOINT_TIME, self.saved_at - began)

    def _count(self, counter: Counter, amount: float) -> None:
        """Tell Prometheus, of all ranks once."""
        if self.world.rank == 0:
            count(counter, amount, self.tags)

    def _resume(self, checkpoint: Checkpoint) -> None:
        check_identity(checkpoint, self.identity, self.job.checkpoints)
        self.network.load_state_dict(dict(checkpoint.tensors["model"]))
        self.optimizer_state = dict(checkpoint.tensors["optimizer"])
        self.step = checkpoint.step
        self.seconds_before = checkpoint.state["seconds"]
        self.loss_sum, self.loss_steps = checkpoint.state["loss"]
        self.history = [Record(**values) for values in checkpoint.state["history"]]
        self.parts_before = [Part(**values) for values in checkpoint.state.get("parts", [])]
        self.plateau = Plateau(**checkpoint.state["plateau"])
        self.validation_psnr = checkpoint.state["validation_psnr"]
        logger.info("%s goes on from %s", self.recipe.name, checkpoint.uri)

    def _agree_on_precision(self) -> Precision:
        """Return the precision of this call; say so where it is not that of the part before."""
        before = self.parts_before
        precision = agreed_precision(self.job, self.world, before[0].precision if before else None)
        if before and before[-1].precision != precision:
            logger.warning(
                "%s goes on in %s on %s; the %d steps before were in %s on %s",
                self.recipe.name,
                precision,
                self.processor,
                before[-1].steps,
                before[-1].precision,
                before[-1].processor,
            )
        return precision

    def _parts(self) -> tuple[Part, ...]:
        """Return the parts so far; this call's steps go with those of an equal last part."""
        now = Part(
            processor=self.processor, precision=self.precision, steps=self.step - self.first_step
        )
        *older, last = self.parts_before or [replace(now, steps=0)]
        if replace(last, steps=now.steps) == now:
            return (*older, replace(last, steps=last.steps + now.steps))
        return (*self.parts_before, now) if now.steps else tuple(self.parts_before)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"recipe {self.recipe.name}, step {self.step}: {what}. The checkpoints in "
            f"{self.job.checkpoints} are from before; lower the learning rate and train anew"
        )

    def _is_late(self) -> bool:
        limit = self.job.stop_after_s
        return self.stop.is_set() or (limit is not None and self._elapsed() >= limit)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _seconds(self) -> float:
        return self.seconds_before + self._elapsed()
