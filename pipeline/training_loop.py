"""The training loop: steps, and every few steps a look at the loss, the clock and the others."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import convert_conv2d_weight_memory_format

from models.losses import LOSSES
from pipeline.loader import Batch, PatchLoader
from pipeline.optimization import (
    dihedral,
    draw_transform,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    seed_network,
    set_learning_rate,
    stage_spans,
)
from pipeline.recipes.base import Recipe, Stage
from pipeline.training_job import (
    WEIGHTS,
    Record,
    TrainingError,
    TrainingJob,
    TrainingResult,
    World,
)
from pipeline.training_start import (
    agreed_checkpoint,
    check_identity,
    initial_network,
    job_identity,
    share_of_batch,
)
from pipeline.weights import save_weights
from storage import files
from storage.checkpoints import Checkpoint, prune_checkpoints, save_checkpoint
from storage.patch_store import StoreVersion

SYNC_STEPS = 10  # steps between looks at the clock, at the loss, and at the other workers
RECORDS = 200  # about as many records as a training gives

OnRecord = Callable[[Record], None]

logger = logging.getLogger(__name__)


def record_steps(recipe: Recipe) -> int:
    """Return after how many steps a record is due: a multiple of SYNC_STEPS, at most 250."""
    return SYNC_STEPS * min(25, max(1, recipe.steps // (SYNC_STEPS * RECORDS)))


class Training:
    """One call of `train`: the network, its optimiser, and where it has got to."""

    def __init__(
        self, job: TrainingJob, store: StoreVersion, world: World, on_record: OnRecord
    ) -> None:
        self.job, self.recipe, self.store, self.world = job, job.recipe, store, world
        self.on_record = on_record
        self.weights = files.join(job.checkpoints, WEIGHTS)
        self.cuda = world.device.type == "cuda"
        self.identity = job_identity(job, store)
        self.network = initial_network(job)
        self.step = 0
        self.stopped = False
        self.history: list[Record] = []
        self.seconds_before = 0.0
        self.loss_sum, self.loss_steps = 0.0, 0
        self.optimizer_state: dict[str, Tensor] = {}
        if checkpoint := agreed_checkpoint(job.checkpoints, world):
            self._resume(checkpoint)
        self.network.to(world.device)
        if self.cuda:
            convert_conv2d_weight_memory_format(self.network, torch.channels_last)
        self.model: nn.Module = self.network.train()
        if world.size > 1:
            self.model = DistributedDataParallel(self.network)

    def run(self) -> TrainingResult:
        """Train from where the checkpoint left off to the end, or until time is up."""
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
            finished=self.step == self.recipe.steps,
        )

    def _run_stage(self, index: int, stage: Stage, first: int, end: int) -> None:
        self.optimizer = make_optimizer(stage, self.network)
        if self.step > first:
            restore_optimizer(self.optimizer, self.optimizer_state)
        loader = PatchLoader(
            self.store,
            self.recipe.qf,
            share_of_batch(stage.batch, self.world.size),
            seed=(self.recipe.seed, index),
            rank=self.world.rank,
            world=self.world.size,
            pin_memory=self.cuda,
        )
        losses: list[Tensor] = []
        with closing(loader.batches(self.step - first)) as batches:
            while self.step < end and not self.stopped:
                lr = learning_rate(stage, self.step - first)
                losses.append(self._take_step(stage, lr, next(batches)))
                self.step += 1
                if self.step == end or self.step % SYNC_STEPS == 0:
                    self._synchronise(stage, lr, losses, at_end=self.step == end)
                    losses.clear()

    def _take_step(self, stage: Stage, lr: float, batch: Batch) -> Tensor:
        seed, device = self.recipe.seed, self.world.device
        seed_network(seed, self.step, self.world.rank)
        set_learning_rate(self.optimizer, lr)
        transform = draw_transform(seed, self.step) if stage.augment else 0
        original, degraded = (
            _to_network(patches, transform, device) for patches in (batch.original, batch.degraded)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self.cuda):
            output = self.model(degraded)
        loss = LOSSES[stage.loss](output.float(), original)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _synchronise(self, stage: Stage, lr: float, losses: list[Tensor], *, at_end: bool) -> None:
        """Agree with the other ranks on the loss and on stopping; record and save when due."""
        overdue = self.job.stop_after_s is not None and self._elapsed() >= self.job.stop_after_s
        total = torch.stack(losses).double().sum()
        totals = torch.stack([total, torch.tensor(float(overdue)).to(total)])
        if self.world.size > 1:
            dist.all_reduce(totals)
        loss, votes = totals.tolist()
        self.loss_sum += loss / self.world.size
        self.loss_steps += len(losses)
        self.stopped = votes > 0
        if not math.isfinite(self.loss_sum):
            raise self._diverged("the loss is not finite")
        if at_end or self.step % record_steps(self.recipe) == 0:
            self._record(stage, lr)
        waited = time.monotonic() - self.saved_at
        due = at_end or self.stopped or waited >= self.job.checkpoint_every_s
        if due and self.world.rank == 0:
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
        )
        self.recorded_at, self.recorded_step = now, self.step
        self.loss_sum, self.loss_steps = 0.0, 0
        self.history.append(record)
        if self.world.rank == 0:
            self.on_record(record)

    def _save_weights(self) -> None:
        """Publish the weights beside the checkpoints, to be scored at any time."""
        save_weights(self.weights, self.network, self.recipe, self.step)

    def _save(self) -> None:
        model = self.network.state_dict()
        if not all(bool(value.isfinite().all()) for value in model.values()):
            raise self._diverged("a weight is not finite")
        state = {
            "identity": self.identity,
            "seconds": self._seconds(),
            "loss": [self.loss_sum, self.loss_steps],
            "history": [asdict(record) for record in self.history],
        }
        tensors = {"model": model, "optimizer": optimizer_tensors(self.optimizer)}
        save_checkpoint(self.job.checkpoints, self.step, tensors, state)
        self._save_weights()
        prune_checkpoints(self.job.checkpoints)
        self.saved_at = time.monotonic()

    def _resume(self, checkpoint: Checkpoint) -> None:
        check_identity(checkpoint, self.identity, self.job.checkpoints)
        self.network.load_state_dict(dict(checkpoint.tensors["model"]))
        self.optimizer_state = dict(checkpoint.tensors["optimizer"])
        self.step = checkpoint.step
        self.seconds_before = checkpoint.state["seconds"]
        self.loss_sum, self.loss_steps = checkpoint.state["loss"]
        self.history = [Record(**values) for values in checkpoint.state["history"]]
        logger.info("%s goes on from %s", self.recipe.name, checkpoint.uri)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"recipe {self.recipe.name}, step {self.step}: {what}. The checkpoints in "
            f"{self.job.checkpoints} are from before; lower the learning rate and train anew"
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _seconds(self) -> float:
        return self.seconds_before + self._elapsed()


def _to_network(patches: Tensor, transform: int, device: torch.device) -> Tensor:
    """(N, side, side) uint8 -> (N, 1, side, side) float32 in [0, 1] on the device, transformed."""
    there = patches.to(device, non_blocking=True)
    return dihedral(there, transform).unsqueeze(1).float() / 255
