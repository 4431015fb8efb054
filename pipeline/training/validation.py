"""How good a network is on patches that it is not trained on."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from models import needs_table
from pipeline.loading.inputs import to_network
from pipeline.loading.loader import PatchLoader
from pipeline.loading.row_groups import held_out_rows
from pipeline.recipes.base import Stage
from pipeline.training.job import TrainingJob, World
from pipeline.training.start import check_store
from storage.files import StoreError
from storage.patches.versions import StoreVersion, open_store

PATCHES = 512  # at most so many are looked at, over all workers
BATCH = 64


class Validation:
    """Patches of the recipe's validation set, or those that it holds out; the same at each look."""

    def __init__(self, job: TrainingJob, store: StoreVersion, stage: Stage, world: World) -> None:
        """Read this worker's part and keep it; `store` is what the job trains on.

        Raises StoreError when the store is too small to hold out, or when that of the validation
        set does not fit.
        """
        self._world = world
        recipe, share = job.recipe, job.recipe.validation_share
        rows = held_out_rows(store, share)
        if recipe.looks_at is not None:
            store, share = validation_version(job), 1.0
            rows = store.rows
        batch = max(1, min(BATCH, stage.batch, rows))
        loader = PatchLoader(
            store,
            recipe.qfs,
            batch,
            seed=(recipe.seed,),
            side=stage.side,
            held_out=share,
            validation=True,
        )
        looks = min(loader.steps_per_epoch, PATCHES // batch)
        with closing(loader.batches()) as batches:
            self._batches = list(islice(batches, world.rank, looks, world.size))

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


def validation_version(job: TrainingJob) -> StoreVersion:
    """Return the store version of the validation set.

    Raises StoreError, with the next step, unless it is of the images that the recipe looks at,
    and of its patches.
    """
    assert job.validation_store is not None
    recipe = job.recipe
    version = open_store(job.validation_store, job.validation_version)
    check_store(replace(recipe, patches=recipe.validation_patches), version)
    if version.dataset != recipe.looks_at:
        raise StoreError(
            f"{version.name} holds patches of {version.dataset}; recipe {recipe.name} validates on "
            f"{recipe.looks_at}: give a store of these images"
        )
    return version
