"""How good a network is on patches that it is not trained on."""

import math
from collections.abc import Mapping
from contextlib import closing
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from models import needs_table
from pipeline.inputs import to_network
from pipeline.loader import PatchLoader
from pipeline.recipes.base import Recipe, Stage
from pipeline.row_groups import held_out_rows
from pipeline.training_job import World
from storage.patch_store import StoreVersion

PATCHES = 512  # at most so many are looked at, over all workers
BATCH = 64


class Validation:
    """The patches that a recipe holds out, read once and kept; the same at every look."""

    def __init__(self, store: StoreVersion, recipe: Recipe, stage: Stage, world: World) -> None:
        """Read this worker's part. Raises StoreError when the store is too small to hold out."""
        self._world = world
        held = held_out_rows(store, recipe.validation_share)
        batch = max(1, min(BATCH, stage.batch // world.size, held // world.size))
        loader = PatchLoader(
            store,
            recipe.qfs,
            batch,
            seed=(recipe.seed,),
            rank=world.rank,
            world=world.size,
            side=stage.side,
            held_out=recipe.validation_share,
            validation=True,
        )
        looks = min(loader.steps_per_epoch, max(1, PATCHES // (batch * world.size)))
        with closing(loader.batches()) as batches:
            self._batches = list(islice(batches, looks))

    @torch.inference_mode()
    def psnr(self, network: nn.Module, weights: Mapping[str, Tensor]) -> float:
        """Return the PSNR of `network` with `weights` over the patches of all workers, dB.

        It is that of the mean squared error over all pixels, 10 log10(1 / MSE); minus infinity for
        a network that has diverged. The network is used in evaluation mode, and is in training
        mode afterwards.
        """
        total = torch.zeros(2, dtype=torch.float64, device=self._world.device)
        network.eval()
        for batch in self._batches:
            inputs, target = to_network(batch, self._world.device, with_tables=needs_table(network))
            restored = functional_call(network, dict(weights), inputs)
            total[0] += (restored - target).square().sum()
            total[1] += target.numel()
        network.train()
        if self._world.size > 1:
            dist.all_reduce(total)
        squares, pixels = total.tolist()
        if not math.isfinite(squares):
            return -math.inf
        return 10 * math.log10(pixels / max(squares, 1e-12))
