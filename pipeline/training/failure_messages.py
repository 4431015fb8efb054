"""What to say when a training cannot go on: which batch was bad, what does not fit into memory."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.recipes.base import Recipe, Stage
from pipeline.training.job import TrainingError, World
from storage.patches.shard_reader import locate_rows
from storage.patches.versions import StoreVersion

CPU_OUT_OF_MEMORY = ("can't allocate memory", "could not create a primitive")  # torch, oneDNN
NAMED_ROWS = 5  # rows of a shard that a message names


def first_bad_batch(
    store: StoreVersion,
    world: World,
    step: int,
    losses: Sequence[Tensor],
    rows: Sequence[np.ndarray],
) -> str:
    """Say which batch, of which shards, had the first loss that is not finite, on any rank.

    `losses` and `rows` are those of the last steps before `step`; every rank makes the same call.
    """
    bad = [i for i, loss in enumerate(losses) if not bool(loss.isfinite())]
    found = [(step, "")]
    if bad:
        found = [(step - len(losses) + bad[0], _told_rows(locate_rows(store, rows[bad[0]])))]
    if world.size > 1:
        everywhere: list = [None] * world.size
        dist.all_gather_object(everywhere, found[0])
        found = everywhere
    first, where = min(found)
    return f"the loss of step {first} is not finite; its batch is {where}"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch could not get the memory it asked for, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in CPU_OUT_OF_MEMORY)


def too_large(
    recipe: Recipe, stage: Stage, world: World, side: int, take: Callable[[int], object]
) -> TrainingError:
    """Return the error for a batch that ran out of memory, with what would fit.

    `take` is given a number of patches, and does with them what ran out of memory, without the
    other workers.
    """
    each = -(-stage.batch // world.size)
    fits = _fitting_batch(take, each)
    told = f"{fits} would" if fits else "fewer or smaller ones may"
    return TrainingError(
        f"recipe {recipe.name}, stage {stage.name}: {each} patches of {side}x{side} a worker do "
        f"not fit into the memory of {world.device}; {told}. Share the batch of {stage.batch} "
        "among more workers, or give the stage a smaller batch or side; the checkpoints stay"
    )


def _fitting_batch(take: Callable[[int], object], batch: int) -> int:
    """Return the largest of batch / 2, / 4, ... that there is memory for; 0 if none fits."""
    while batch := batch // 2:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            take(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return batch
    return 0


def _told_rows(shards: Mapping[str, list[int]]) -> str:
    parts = []
    for key, rows in shards.items():
        more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
        parts.append(f"rows {', '.join(map(str, rows[:NAMED_ROWS]))}{more} of {key}.parquet")
    return "; ".join(parts)
