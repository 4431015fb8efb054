"""Which row groups of a store are trained on, and which are held out."""

import math
from dataclasses import dataclass

import numpy as np

from storage.files import StoreError
from storage.patches.versions import ShardEntry, StoreVersion

SHARE = 3  # what a random stream is for, part of its seed


@dataclass(frozen=True)
class RowGroup:
    """Where a row group lies: its number within its shard, its first row within the store."""

    shard: ShardEntry
    number: int
    first: int
    rows: int


def row_groups(store: StoreVersion) -> list[RowGroup]:
    """Return all row groups of a store in store order."""
    size, first, groups = store.row_group_rows, 0, []
    for shard in store.shards:
        for number, start in enumerate(range(0, shard.rows, size)):
            rows = min(size, shard.rows - start)
            groups.append(RowGroup(shard, number, first + start, rows))
        first += shard.rows
    return groups


def chosen_groups(
    store: StoreVersion, seed: tuple[int, ...], share: float, held_out: float, validation: bool
) -> list[RowGroup]:
    """Return the row groups that a loader gives, in store order.

    The last `held_out` of them are for validation; of the others the same `share` is taken for the
    same first number of `seed`. Raises StoreError when nothing is left to train on.
    """
    groups = row_groups(store)
    kept = len(groups) - math.ceil(held_out * len(groups))
    if validation:
        return groups[kept:]
    if held_out and not kept:
        raise StoreError(
            f"{store.uri}: holding out {held_out:.0%} leaves nothing to train on, it has "
            f"{len(groups)} row group: build the store from more images"
        )
    chosen = np.random.default_rng((*seed[:1], SHARE)).permutation(kept)
    return [groups[i] for i in sorted(chosen[: math.ceil(share * kept)])]


def held_out_rows(store: StoreVersion, held_out: float) -> int:
    """Return how many patches are held out for validation."""
    return sum(group.rows for group in chosen_groups(store, (), 1.0, held_out, validation=True))
