"""What the patches of a store measure: JPEG's loss and bits by quality factor, luma, flat ones."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.images.jpeg import encode
from pipeline.images.metrics import MAX_DB, PEAK, ssim
from pipeline.patches.cut import MOSAIC_COLUMNS, tiled
from storage import files
from storage.files import StoreError
from storage.patches.schema import ORIGINAL, pixel_columns, qf_column
from storage.patches.shard_reader import read_rows
from storage.patches.versions import StoreVersion, statistics_name

SAMPLED_ROWS = 4096
SAMPLED_GROUPS = 64
"""Row groups that a sample is drawn out of: each is read as a whole."""
FLAT_VARIANCE = 4.0
"""Squared grey levels; a patch whose original varies less is flat."""
NOTHING = np.zeros((8, 8), np.uint8)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QualityStats:
    """What JPEG at one quality factor does to the patches."""

    qf: int
    psnr: float
    """dB, of the mean squared error over all pixels."""
    ssim: float
    """Mean over the patches, uniform 8x8 windows."""
    bpp: float
    """Bits per pixel of JPEG files of the originals, a row group's patches side by side in each,
    headers not counted. An estimate where whole images are compressed."""


@dataclass(frozen=True, kw_only=True)
class StoreStats:
    """What was measured of a version, and of how much of it."""

    content: str
    """The version's; see StoreVersion."""
    rows: int
    """Patches that were measured."""
    of_rows: int
    row_groups: int
    """Row groups that they lie in."""
    of_row_groups: int
    seed: int | None
    """Decides which; None if all were measured."""
    asked_rows: int | None
    flat_variance: float
    flat_share: float
    """Share of the patches whose original has a variance below `flat_variance`, 0 to 1."""
    luma_mean: float
    luma: tuple[int, ...]
    """Pixels of the originals with luma 0, 1, ... 255."""
    quality: tuple[QualityStats, ...]


def measure(
    store: StoreVersion,
    *,
    rows: int | None = SAMPLED_ROWS,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> StoreStats:
    """Measure a sample of about `rows` patches of a version, or with None all of them.

    The sample is drawn out of at most SAMPLED_GROUPS row groups, from each equally many. One row
    group is in memory at a time. Raises StoreError for a damaged shard, and ValueError for `rows`
    below 1.
    """
    if rows is not None and rows < 1:
        raise ValueError(f"rows {rows}: measure 1 or more")
    rows = _fewer(store, rows)
    groups = _chosen_groups(store, rows, seed)
    sums = _Sums(store)
    for done, (shard, group) in enumerate(groups, start=1):
        pixels = read_rows(store, store.shards[shard], group, sums.columns)
        if rows is not None:
            order = np.random.default_rng((seed, shard, group)).permutation(len(pixels[0]))
            kept = np.sort(order[: -(-rows // len(groups))])
            pixels = [column[kept] for column in pixels]
        sums.add(dict(zip(sums.columns, pixels, strict=True)))
        on_progress(done, len(groups))
    return sums.result(len(groups), None if rows is None else seed, rows)


def measured_before(store: StoreVersion, *, rows: int | None, seed: int) -> StoreStats | None:
    """Return what `keep` kept of a version, None if it is of another sample, damaged or missing."""
    rows = _fewer(store, rows)
    try:
        values = json.loads(files.read_bytes(_place(store)))
        if values.pop("digest") != _digest(values):
            return None
        quality = tuple(QualityStats(**one) for one in values.pop("quality"))
        found = StoreStats(**{**values, "luma": tuple(values["luma"]), "quality": quality})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    wanted = (store.content, rows, None if rows is None else seed, FLAT_VARIANCE)
    is_same = wanted == (found.content, found.asked_rows, found.seed, found.flat_variance)
    return found if is_same else None


def keep(store: StoreVersion, stats: StoreStats) -> None:
    """Write beside a version's head what was measured; a warning where that cannot be."""
    try:
        values = json.loads(json.dumps(asdict(stats)))
        text = json.dumps({**values, "digest": _digest(values)}, indent=1)
        files.write_bytes(_place(store), text.encode())
    except (StoreError, OSError) as error:
        logger.warning("what was measured is not kept: %s", error)


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _fewer(store: StoreVersion, rows: int | None) -> int | None:
    return rows if rows is not None and rows < store.rows else None


def _place(store: StoreVersion) -> str:
    return files.join(store.uri, "versions", statistics_name(store.number))


def _groups_a_shard(store: StoreVersion) -> np.ndarray:
    return -(-np.array([shard.rows for shard in store.shards], np.int64) // store.row_group_rows)


def _chosen_groups(store: StoreVersion, rows: int | None, seed: int) -> list[tuple[int, int]]:
    """Return which row groups are read, as (shard, row group in it), in the store's order."""
    ends = _groups_a_shard(store).cumsum()
    total = int(ends[-1])
    chosen = np.arange(total)
    if rows is not None and total > SAMPLED_GROUPS:
        draw = np.random.default_rng((seed, 0))
        chosen = np.sort(draw.choice(total, min(SAMPLED_GROUPS, rows), replace=False))
    shards = np.searchsorted(ends, chosen, side="right")
    within = chosen - np.concatenate([[0], ends])[shards]
    return [(int(shard), int(group)) for shard, group in zip(shards, within, strict=True)]


class _Sums:
    """What is added up over the patches."""

    def __init__(self, store: StoreVersion) -> None:
        self._store = store
        self.columns = pixel_columns(store.spec)
        self._rows = 0
        self._flat = 0
        self._luma = np.zeros(256, np.int64)
        self._errors = dict.fromkeys(store.spec.qfs, 0)
        self._ssims = dict.fromkeys(store.spec.qfs, 0.0)
        self._bits = dict.fromkeys(store.spec.qfs, 0)
        self._pixels = 0
        self._coded = 0

    def add(self, pixels: Mapping[str, np.ndarray]) -> None:
        """Count patches: pixel column -> (N, side, side) uint8."""
        original = pixels[ORIGINAL]
        self._rows += len(original)
        self._pixels += original.size
        self._luma += np.bincount(original.ravel(), minlength=256)
        self._flat += int((original.var((1, 2)) < FLAT_VARIANCE).sum())
        columns = min(MOSAIC_COLUMNS, len(original))
        mosaic = tiled(original[: len(original) // columns * columns])  # full rows alone
        self._coded += mosaic.size
        for qf in self._store.spec.qfs:
            degraded = pixels[qf_column(qf)]
            error = original.astype(np.int32) - degraded
            self._errors[qf] += int(np.square(error, out=error).sum(dtype=np.int64))
            self._ssims[qf] += math.fsum(map(ssim, original, degraded))
            self._bits[qf] += 8 * (len(encode(mosaic, qf)) - len(encode(NOTHING, qf)))

    def result(self, groups: int, seed: int | None, asked: int | None) -> StoreStats:
        levels = np.arange(256)
        return StoreStats(
            content=self._store.content,
            rows=self._rows,
            of_rows=self._store.rows,
            row_groups=groups,
            of_row_groups=int(_groups_a_shard(self._store).sum()),
            seed=seed,
            asked_rows=asked,
            flat_variance=FLAT_VARIANCE,
            flat_share=self._flat / self._rows,
            luma_mean=float((self._luma * levels).sum() / self._pixels),
            luma=tuple(self._luma.tolist()),
            quality=tuple(
                QualityStats(
                    qf=qf,
                    psnr=_decibels(self._errors[qf] / self._pixels),
                    ssim=self._ssims[qf] / self._rows,
                    bpp=self._bits[qf] / self._coded,
                )
                for qf in self._store.spec.qfs
            ),
        )


def _decibels(error: float) -> float:
    return min(MAX_DB, 10 * math.log10(PEAK**2 / error)) if error else MAX_DB
