"""A training is a function of its job: the same weights every time, interrupted or not."""

import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from models import build_model
from models.quickres import QuickRes
from pipeline.loading.epoch_plan import share_of_batch
from pipeline.loading.inputs import dihedral, turned_tables
from pipeline.loading.loader import PatchLoader
from pipeline.networks.weights import load_network, load_weights
from pipeline.recipes.base import Transfer
from pipeline.recipes.shared import next_cycle
from pipeline.training.__main__ import main
from pipeline.training.failure_messages import too_large
from pipeline.training.job import TrainingError, World, parse_seconds
from pipeline.training.loop import train
from pipeline.training.optimization import Plateau, learning_rate, make_optimizer, set_learning_rate
from storage.checkpoints import CheckpointError, checkpoint_steps
from storage.files import StoreError
from storage.patches.schema import PatchSpec
from storage.patches.shard_reader import locate_rows
from tests.support.project import PROJECT
from tests.support.store_images import build, image_folder
from tests.support.training_recipes import (
    EVERYTHING,
    RECIPE,
    STAGE,
    TWO_STAGES,
    make_job,
    make_store,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def done(store, tmp_path_factory):
    """A job that nothing disturbed, and its result."""
    job = make_job(store, tmp_path_factory.mktemp("done"))
    return job, train(job)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def interrupt_at(step):
    def on_record(record):
        if record.step >= step:
            raise KeyboardInterrupt

    return on_record


def losses(result):
    return [(record.step, record.loss, record.lr) for record in result.history]


def assert_same_weights(one, other):
    ours, theirs = load_file(one.weights), load_file(other.weights)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_same_job_gives_the_same_losses_and_weights_bit_for_bit(done, tmp_path):
    job, one = done
    torch.manual_seed(2)
    other = train(replace(job, checkpoints=str(tmp_path)))
    assert losses(one) == losses(other)
    assert_same_weights(one, other)
    assert one.finished
    assert one.steps == 40


def test_another_seed_gives_other_losses(store, done, tmp_path):
    other = train(make_job(store, tmp_path, replace(RECIPE, seed=1)))
    assert losses(done[1]) != losses(other)


@pytest.mark.slow
def test_training_lowers_the_error_of_the_store_below_that_of_jpeg(store, tmp_path):
    recipe = replace(RECIPE, stages=(replace(STAGE, steps=150),))
    _, network = load_network(train(make_job(store, tmp_path, recipe)).weights)
    loader = PatchLoader(store, [10], 240)
    batch = next(loader.batches())
    original, degraded = (p[:, None].float() / 255 for p in (batch.original, batch.degraded))
    with torch.no_grad():
        restored = network(degraded).clamp(0, 1)
    assert F.mse_loss(restored, original) < 0.98 * F.mse_loss(degraded, original)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [RECIPE, TWO_STAGES, EVERYTHING], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("step", [10, 20])
def test_an_interrupted_training_ends_as_an_undisturbed_one(store, tmp_path, recipe, step):
    whole = train(make_job(store, tmp_path / "whole", recipe))
    job = make_job(store, tmp_path / "broken", recipe, checkpoint_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(job, on_record=interrupt_at(step))
    assert checkpoint_steps(job.checkpoints)[-1:] != [recipe.steps]
    seen = []
    resumed = train(job, on_record=seen.append)
    assert losses(resumed) == losses(whole)
    assert seen == list(resumed.history)
    assert_same_weights(resumed, whole)


def test_stopping_by_the_clock_leaves_a_checkpoint_that_goes_on(store, done, tmp_path):
    job = make_job(store, tmp_path, stop_after_s=0.0)
    stopped = train(job)
    assert (stopped.steps, stopped.finished) == (1, False)
    assert load_weights(stopped.weights)[0].step == 1
    resumed = train(replace(job, stop_after_s=None))
    assert resumed.finished
    assert resumed.seconds > stopped.seconds
    assert_same_weights(resumed, done[1])


def test_a_finished_training_is_not_done_again(done):
    job, first = done
    again = train(job)
    assert again.history == first.history
    assert_same_weights(again, first)


def test_checkpoints_of_another_training_are_refused_by_name(done):
    other = replace(done[0], recipe=replace(RECIPE, name="other-qf10"))
    with pytest.raises(CheckpointError, match=r"recipe small-qf10 .* this one is recipe other-qf1"):
        train(other)


def test_checkpoints_of_another_store_are_refused(done, tmp_path):
    larger = build(image_folder(tmp_path / "photos", count=24), tmp_path / "store").version
    with pytest.raises(CheckpointError, match="of another training"):
        train(make_job(larger, Path(done[0].checkpoints)))


def test_a_store_of_another_spec_is_refused_with_the_command_that_builds_the_right_one(
    store, tmp_path
):
    wanted = PatchSpec(side=64, stride=16, qfs=(10, 20), degradation="image")
    with pytest.raises(
        StoreError, match=r"side 32 instead of 64.*patches build .* --side 64 .* --store"
    ):
        train(make_job(store, tmp_path, replace(RECIPE, patches=wanted)))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(store, tmp_path):
    tune = replace(STAGE, name="tune", optimizer="sgd", lr=1e12)
    recipe = replace(RECIPE, stages=(replace(STAGE, steps=20), tune))
    with pytest.raises(TrainingError, match=r"not finite.*lower the learning rate"):
        train(make_job(store, tmp_path, recipe, checkpoint_every_s=0.0))
    assert checkpoint_steps(str(tmp_path))[-1] == 20


def test_a_loss_that_is_not_finite_names_its_batch_within_the_shards(store, tmp_path):
    recipe = replace(RECIPE, stages=(replace(STAGE, optimizer="sgd", lr=1e30, augment=False),))
    loader = PatchLoader(store, [10], STAGE.batch, seed=(recipe.seed, 0))
    with pytest.raises(TrainingError) as failed:
        train(make_job(store, tmp_path, recipe))
    found = re.search(r"loss of step (\d+)", str(failed.value))
    assert found, failed.value
    step = int(found[1])
    assert 0 < step < 10
    batch = next(loader.batches(step))
    for key, rows in locate_rows(store, batch.rows).items():
        named = ", ".join(str(row) for row in rows[:5])
        assert re.search(rf"rows {named}( and \d+ more)? of {key}\.parquet", str(failed.value))


def test_a_network_that_diverges_before_a_validation_is_told_the_same_way(store, tmp_path):
    stage = replace(STAGE, optimizer="sgd", lr=1e9, schedule="plateau", validate_every=1)
    recipe = replace(RECIPE, validation_share=0.3, stages=(stage,))
    with pytest.raises(TrainingError, match=r"loss of step \d+ is not finite; its batch is rows"):
        train(make_job(store, tmp_path, recipe))


def test_a_batch_that_does_not_fit_into_memory_is_told(store, tmp_path, monkeypatch):
    restore = QuickRes.forward

    def restore_with_more(network, image):
        torch.empty(max(0, len(image) - 1) << 45, dtype=torch.uint8)  # no machine has it
        return restore(network, image)

    monkeypatch.setattr(QuickRes, "forward", restore_with_more)
    told = f"{STAGE.batch} patches of 32x32 a worker do not fit into the memory of cpu; 1 would"
    with pytest.raises(TrainingError, match=told):
        train(make_job(store, tmp_path))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_largest_half_that_fits_is_named(workers):
    def take(patches):
        torch.empty(max(0, patches - 10) << 45, dtype=torch.uint8)

    stage = replace(STAGE, batch=64 * workers)
    error = too_large(RECIPE, stage, World(size=workers), 32, take)
    assert "64 patches of 32x32 a worker do not fit into the memory of cpu; 8 would" in str(error)


def test_weights_given_out_are_the_moving_average_of_all_steps(store, tmp_path):
    stage = replace(STAGE, steps=3, schedule="constant", warmup_steps=0)
    recipe = replace(RECIPE, ema_decay=0.15, stages=(stage,))
    given = load_file(train(make_job(store, tmp_path / "average", recipe)).weights)
    torch.manual_seed(recipe.seed)
    average = build_model(recipe.architecture, recipe.options).state_dict()
    for step, decay in enumerate((0.1, 0.15, 0.15)):  # (1 + step) / (10 + step) at first
        plain = replace(recipe, ema_decay=None, stages=(replace(stage, steps=step + 1),))
        after = load_file(train(make_job(store, tmp_path / f"{step}", plain)).weights)
        average = {name: decay * average[name] + (1 - decay) * after[name] for name in after}
    assert all(torch.allclose(given[name], average[name], atol=1e-7) for name in given)


def test_the_plateau_schedule_divides_after_validations_without_gain(store, tmp_path):
    stage = replace(STAGE, schedule="plateau", validate_every=1, plateau_patience=2, lr=1.0)
    plateau, rates = Plateau(), []
    for psnr in (20.0, 21.0, 21.0, 20.5, 20.9, 20.8, 22.0, 21.0):
        plateau.update(stage, psnr)
        rates.append(plateau.scale)
    assert rates == pytest.approx([1, 1, 1, 1 / 3, 1 / 3, 1 / 9, 1 / 9, 1 / 9])
    frozen = replace(RECIPE, validation_share=0.3, stages=(replace(stage, lr=1e-30, steps=10),))
    history = train(make_job(store, tmp_path, frozen)).history
    assert len({record.validation_psnr for record in history}) == 1
    assert history[-1].lr == pytest.approx(1e-30 / 3**4, rel=1e-6)


def test_validation_is_that_of_the_patches_held_out(store, tmp_path):
    stage = replace(STAGE, validate_every=40)
    recipe = replace(RECIPE, validation_share=0.3, stages=(stage,))
    result = train(make_job(store, tmp_path, recipe))
    loader = PatchLoader(store, [10], 8, held_out=0.3, validation=True)
    _, network = load_network(result.weights)
    errors = []
    for batch in islice(loader.batches(), loader.steps_per_epoch):
        original, degraded = (p[:, None].float() / 255 for p in (batch.original, batch.degraded))
        with torch.no_grad():
            errors.append(F.mse_loss(network(degraded), original).item())
    found = result.history[-1].validation_psnr
    assert found == pytest.approx(-10 * math.log10(sum(errors) / len(errors)), abs=1e-4)


def test_an_exponential_schedule_falls_by_the_same_factor_every_step():
    stage = replace(STAGE, steps=50, warmup_steps=0, schedule="exponential", lr=1e-3)
    rates = [learning_rate(stage, step) for step in range(50)]
    assert (rates[0], rates[-1]) == (pytest.approx(1e-3), pytest.approx(1e-5))
    assert rates[1] / rates[0] == pytest.approx(rates[49] / rates[48])


def test_a_turned_patch_has_the_transposed_table():
    """JPEG of a turned patch with the turned table is the turned JPEG: seen in the DCT."""
    table = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
    basis = torch.cos((2 * torch.arange(8) + 1) * math.pi * 3 / 16)
    vertical = basis[:, None].expand(8, 8)[None]  # only vertical frequency 3
    for transform in range(8):
        turned = dihedral(vertical, transform)
        is_vertical = bool((turned.std(dim=2) < 1e-6).all())
        steps = turned_tables(table, transform)[0]
        assert steps[3, 0 if is_vertical else 3] == (24 if is_vertical else 27)
        assert (steps[3, 0] if is_vertical else steps[0, 3]) == 24


@pytest.mark.slow
def test_a_recipe_that_starts_from_another_asks_for_it_and_takes_its_layers(store, done, tmp_path):
    hard = replace(RECIPE, name="hard-qf10", init_from=Transfer(recipe="small-qf10", layers=1))
    with pytest.raises(ValueError, match="starts from 'small-qf10': train that first"):
        make_job(store, tmp_path / "hard", hard)
    easy = done[1]
    still = replace(hard, stages=(replace(STAGE, optimizer="sgd", lr=1e-30),))
    result = train(make_job(store, tmp_path / "hard", still, initial_weights=easy.weights))
    ours, theirs = load_file(result.weights), load_file(easy.weights)
    same = {name for name in ours if torch.equal(ours[name], theirs[name])}
    assert {name for name in ours if name.startswith("layer1.")} <= same
    assert "layer2.0.weight" not in same
    again = train(make_job(store, tmp_path / "again", still, initial_weights=result.weights))
    assert load_weights(again.weights)[0].recipe == "hard-qf10", "it may go on from its own"
    longer = next_cycle(replace(still, init_from=None, name="small-qf10"))
    cycle = train(make_job(store, tmp_path / "next", longer, initial_weights=easy.weights))
    train(make_job(store, tmp_path / "from next", still, initial_weights=cycle.weights))
    other = replace(hard, init_from=Transfer(recipe="else-qf10", layers=1))
    with pytest.raises(ValueError, match=r"'else-qf10', but .* is of 'small-qf10'"):
        train(make_job(store, tmp_path / "other", other, initial_weights=easy.weights))


def test_weights_name_their_network_and_a_flipped_byte_in_them_is_found(done, tmp_path):
    weights = shutil.copy(done[1].weights, tmp_path)
    origin, network = load_network(weights)
    assert (origin.recipe, origin.qfs, origin.step) == ("small-qf10", (10,), 40)
    assert not network.training
    content = bytearray(Path(weights).read_bytes())
    content[-9] ^= 1
    Path(weights).write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_weights(weights)


def test_the_learning_rate_rises_linearly_and_ends_where_the_stage_says():
    stage = replace(STAGE, steps=100, warmup_steps=4, lr=1.0, final_lr_scale=0.01)
    rates = [learning_rate(stage, step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[-1] == pytest.approx(0.01)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    constant = replace(stage, schedule="constant", warmup_steps=0)
    assert {learning_rate(constant, step) for step in range(100)} == {1.0}


def test_the_last_layer_alone_learns_at_its_own_rate():
    network = build_model("arcnn")
    optimizer = make_optimizer(replace(STAGE, last_layer_lr_scale=0.1), network)
    set_learning_rate(optimizer, 2.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.2 if name.startswith("conv4.") else 2.0)


def test_the_eight_transforms_of_a_patch_are_all_different():
    patch = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
    assert len({dihedral(patch, transform).numpy().tobytes() for transform in range(8)}) == 8
    assert torch.equal(dihedral(patch, 0), patch)


def test_durations_are_read_as_people_write_them():
    assert [parse_seconds(text) for text in ("90", "90s", "9m", "1.5h", "7d")] == [
        90, 90, 540, 5400, 604800,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="write it as"):
        parse_seconds("soon")


def test_a_batch_of_fewer_patches_than_workers_is_refused():
    with pytest.raises(ValueError, match="a batch of 8 is too small for 9 workers: choose fewer"):
        share_of_batch(8, 9)


def command_of(store: str, out: Path) -> list[str]:
    options = ["--steps", "60", "--checkpoint-every", "0s", "--threads", "1"]
    return ["quickres-qf10", "--store", store, "--out", str(out), *options]


@pytest.mark.slow
def test_a_training_killed_at_random_moments_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    spec = PatchSpec(side=64, stride=32, qfs=(10,), degradation="image")
    photos = image_folder(tmp_path / "photos", count=8, size=(200, 200))
    store = build(photos, tmp_path / "store", spec).version
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(command_of(store.uri, whole))
    kills = []
    for _ in range(2):
        command = [sys.executable, "-m", "pipeline.training", *command_of(store.uri, broken)]
        training = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
        before = checkpoint_steps(str(broken))[-1:]
        while training.poll() is None and checkpoint_steps(str(broken))[-1:] == before:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.8))
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        kills.append(checkpoint_steps(str(broken))[-1])
    main(command_of(store.uri, broken))
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (broken, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs), f"killed at {kills}"
    assert kills[0] < 60


def test_without_a_store_the_command_that_builds_a_fitting_one_is_told(tmp_path, capsys):
    store = str(tmp_path / "none")
    with pytest.raises(SystemExit):
        main(["arcnn-fast-qf10", "--store", store, "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert f"{store}: there is no patch store; qfactory patches build --dataset bsds500" in told
    assert "--side 32 --stride 10 --qf 10 20 30 40 --degradation patch" in told
