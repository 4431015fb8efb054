"""A checkpoint is whole or it does not exist, and a damaged one is never used."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from storage.checkpoints import (
    CheckpointError,
    checkpoint_steps,
    checkpoint_uri,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from tests.support.project import PROJECT


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, 5, generator=generator)
    return {
        "model": {"weight": weight, "transposed": weight.transpose(0, 2)},
        "optimizer": {"0.step": torch.tensor(7.0), "half": weight.bfloat16()},
    }


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    state = {"loss": 0.1 + 0.2, "history": [{"step": 1}], "none": None}
    save_checkpoint(str(tmp_path), 12, tensors(0), state)
    found = load_checkpoint(str(tmp_path))
    assert found is not None
    assert found.step == 12
    assert found.state == state
    for group, named in tensors(0).items():
        assert set(found.tensors[group]) == set(named)
        for name, tensor in named.items():
            assert torch.equal(found.tensors[group][name], tensor)
            assert found.tensors[group][name].dtype == tensor.dtype


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert load_checkpoint(str(tmp_path)) is None
    assert load_checkpoint(str(tmp_path / "missing")) is None


def test_the_newest_step_is_found_by_number_and_any_other_by_asking(tmp_path):
    for step in (9, 10, 100):
        save_checkpoint(str(tmp_path), step, tensors(step), {"step": step})
    newest, older = load_checkpoint(str(tmp_path)), load_checkpoint(str(tmp_path), 10)
    assert newest is not None
    assert older is not None
    assert (newest.step, older.step) == (100, 10)


def test_a_checkpoint_without_its_state_file_does_not_exist(tmp_path):
    save_checkpoint(str(tmp_path), 1, tensors(1), {})
    save_checkpoint(str(tmp_path), 2, tensors(2), {})
    (Path(checkpoint_uri(str(tmp_path), 2)) / "state.json").unlink()
    assert checkpoint_steps(str(tmp_path)) == [1]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_byte_is_found_and_the_checkpoint_before_is_used(tmp_path, name, caplog):
    save_checkpoint(str(tmp_path), 1, tensors(1), {"seconds": 1.0})
    save_checkpoint(str(tmp_path), 2, tensors(2), {"seconds": 2.0})
    flip_a_byte(tmp_path / "step-000000002" / name)
    with caplog.at_level(logging.WARNING):
        found = load_checkpoint(str(tmp_path))
    assert found is not None
    assert found.step == 1
    assert f"step-000000002/{name}" in caplog.text
    with pytest.raises(CheckpointError, match=f"{name} is missing or damaged"):
        load_checkpoint(str(tmp_path), 2)


def test_training_anew_is_never_started_silently_over_damaged_checkpoints(tmp_path):
    save_checkpoint(str(tmp_path), 1, tensors(1), {})
    flip_a_byte(tmp_path / "step-000000001" / "model.safetensors")
    with pytest.raises(CheckpointError, match="delete the folder to train anew"):
        load_checkpoint(str(tmp_path))


def test_pruning_keeps_the_newest_and_removes_unfinished_ones_before_them(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(str(tmp_path), step, tensors(step), {})
    (tmp_path / "step-000000002" / "state.json").unlink()
    assert prune_checkpoints(str(tmp_path), keep=2) == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]
    assert prune_checkpoints(str(tmp_path), keep=2) == []


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_only_whole_checkpoints(tmp_path):
    script = (
        "import sys, torch\n"
        "from storage.checkpoints import save_checkpoint\n"
        "for step in range(10**6):\n"
        "    values = {'weight': torch.full((50_000,), float(step))}\n"
        "    save_checkpoint(sys.argv[1], step, {'model': values}, {'step': step})\n"
    )
    for wait in (0.01, 0.05, 0.1):
        folder = tmp_path / str(wait)
        with subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=PROJECT) as writer:
            while not folder.exists():
                time.sleep(0.01)
            time.sleep(0.2 + wait)
            os.kill(writer.pid, signal.SIGKILL)
        steps = checkpoint_steps(str(folder))
        assert steps
        for step in steps:
            found = load_checkpoint(str(folder), step)
            assert found is not None
            assert found.tensors["model"]["weight"].eq(step).all()
