"""A store in PyTorch's own DataLoader: every pair once, whatever the workers and ranks."""

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.utils.data import DataLoader

from pipeline.loading.iterable_pairs import StorePairs
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import read_rows
from storage.patches.versions import shard_uri
from tests.support.forks import FORKS
from tests.support.project import PROJECT
from tests.support.store_images import build, image_folder

BATCH = 12
README = PROJECT / "storage" / "patches" / "README.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return build(image_folder(folder / "photos"), folder / "store").version


def pairs_of(store, workers=0, epoch=0):
    """The pairs of one epoch as bytes, in the order given."""
    dataset = StorePairs(store.uri, qfs=[10], batch=BATCH)
    dataset.set_epoch(epoch)
    options: dict[str, Any] = {"multiprocessing_context": FORKS} if workers else {}
    found = []
    for degraded, original in DataLoader(dataset, batch_size=None, num_workers=workers, **options):
        assert degraded.shape == original.shape == (BATCH, 1, 32, 32)
        assert degraded.dtype == original.dtype == torch.uint8
        found += [(d.numpy().tobytes(), o.numpy().tobytes()) for d, o in zip(degraded, original)]  # noqa: B905
    return found


def stored_pairs(store):
    groups = [(s, g) for s in store.shards for g in range(-(-s.rows // store.row_group_rows))]
    read = [read_rows(store, shard, group, ["qf10", "original"]) for shard, group in groups]
    columns = (np.concatenate(column) for column in zip(*read, strict=True))
    return Counter((d.tobytes(), o.tobytes()) for d, o in zip(*columns, strict=True))


def test_an_epoch_gives_every_pair_once_and_the_next_in_another_order(store):
    first, again, second = pairs_of(store), pairs_of(store), pairs_of(store, epoch=1)
    assert store.rows % BATCH == 0
    assert Counter(first) == stored_pairs(store)
    assert first == again
    assert first != second
    assert Counter(first) == Counter(second)


@pytest.mark.slow
def test_workers_share_the_pairs(store):
    assert store.rows % (2 * BATCH) == 0
    assert Counter(pairs_of(store, workers=2)) == stored_pairs(store)


@pytest.mark.slow
def test_the_lines_in_the_readme_give_pairs(tmp_path):
    spec = PatchSpec(side=64, stride=8, qfs=(10, 20), degradation="patch")
    photos = image_folder(tmp_path / "photos", size=(160, 160))
    build(photos, tmp_path / "workspace" / "stores" / "mine", spec=spec)
    code = README.read_text().partition("# PyTorch\n")[2].partition("```")[0]
    code += "assert degraded.shape == original.shape == (128, 1, 64, 64)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def pairs_of_rank(store, meeting, rank, answers):
    """What one of two DDP ranks is given by a worker of its own."""
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    answers.put((rank, pairs_of(store, workers=1)))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_share_the_pairs_and_have_as_many_each(store, tmp_path):
    answers = FORKS.Queue()
    meeting = f"file://{tmp_path}/meeting"
    ranks = [
        FORKS.Process(target=pairs_of_rank, args=(store, meeting, rank, answers)) for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    given = dict(answers.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(60)
    assert len(given[0]) == len(given[1])
    assert Counter(given[0]) + Counter(given[1]) == stored_pairs(store)


def test_originals_alone_are_cropped_and_compressed_anew(store, tmp_path):
    spec = PatchSpec(side=64, stride=64, qfs=(), degradation="none")
    originals = build(image_folder(tmp_path / "photos"), tmp_path / "store", spec=spec).version
    dataset = StorePairs(originals.uri, qfs=[20], batch=4, side=32)
    degraded, original = next(iter(DataLoader(dataset, batch_size=None)))
    assert degraded.shape == original.shape == (4, 1, 32, 32)
    assert not torch.equal(degraded, original)


@pytest.mark.slow
def test_a_worker_that_meets_damage_tells_the_repair(tmp_path):
    store = build(image_folder(tmp_path / "photos"), tmp_path / "store").version
    with open(shard_uri(store.uri, store.shards[-1].key), "r+b") as file:  # noqa: PTH123
        file.truncate(1000)
    with pytest.raises(StoreError, match="--repair"):
        pairs_of(store, workers=1)
