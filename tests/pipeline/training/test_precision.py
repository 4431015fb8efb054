"""One place decides in which precision a network computes, and a training can move."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pipeline.networks.devices import bfloat16_units, choose_precision, processor_name
from pipeline.training.__main__ import main
from pipeline.training.job import Part
from pipeline.training.loop import train
from storage.checkpoints import load_checkpoint
from tests.support.training_recipes import EVERYTHING, RECIPE, make_job, make_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("precision"))


def weights_of(result):
    return load_file(result.weights)


def equal(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def stopped_in(precisions):
    """Return what parts say: (precision, steps) of each."""
    return [(part.precision, part.steps) for part in precisions]


@pytest.mark.parametrize(
    ("units", "choice", "begun_in", "chosen"),
    [
        ("AMX", "auto", None, "bfloat16"),
        ("AVX512-BF16", "bfloat16", None, "bfloat16"),
        ("AMX", "float32", None, "float32"),
        ("AMX", "float32", "bfloat16", "float32"),
        (None, "auto", None, "float32"),
        (None, "auto", "bfloat16", "float32"),
        ("AMX", "auto", "float32", "float32"),
        ("AMX", "bfloat16", "float32", "bfloat16"),
    ],
)
def test_the_device_and_what_was_begun_decide_unless_the_user_does(
    processor, units, choice, begun_in, chosen
):
    processor(units)
    assert choose_precision(choice, CPU, begun_in) == chosen


def test_bfloat16_is_refused_on_a_processor_that_lacks_it_with_its_name(
    processor, store, tmp_path, capsys
):
    processor(None)
    with pytest.raises(ValueError, match=r"bfloat16: .+ does not compute in it.*choose float32"):
        train(make_job(store, tmp_path, precision="bfloat16"))
    with pytest.raises(ValueError, match=r"precision 'half': choose one of \['auto', "):
        choose_precision("half", CPU)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        main(["quickres-qf10", "--store", "s", "--out", str(tmp_path), "--precision", "half"])
    assert "choose from" in capsys.readouterr().err


def test_this_machine_is_named_with_what_it_has():
    name, units = processor_name(CPU), bfloat16_units(CPU)
    assert units in ("AMX", "AVX512-BF16", None)
    assert name.endswith(f"({units})") if units else name


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [RECIPE, EVERYTHING], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_a_training_is_the_same_bit_for_bit_whole_or_interrupted_in_each_precision(
    processor, store, tmp_path, recipe, chosen
):
    whole, again = (
        train(make_job(store, tmp_path / name, recipe, precision=chosen)) for name in "ab"
    )
    job = make_job(store, tmp_path / "broken", recipe, precision=chosen, checkpoint_every_s=0.0)

    def interrupt(record):
        if record.step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, on_record=interrupt)
    resumed = train(job)
    losses = [[record.loss for record in result.history] for result in (whole, again, resumed)]
    assert losses[0] == losses[1] == losses[2]
    assert equal(weights_of(again), weights_of(whole))
    assert equal(weights_of(resumed), weights_of(whole))
    assert stopped_in(resumed.parts) == stopped_in(whole.parts) == [(chosen, recipe.steps)]


@pytest.mark.slow
def test_the_precision_makes_a_difference(processor, store, tmp_path):
    exact, rounded = (
        train(make_job(store, tmp_path / chosen, precision=chosen))
        for chosen in ("float32", "bfloat16")
    )
    assert not equal(weights_of(rounded), weights_of(exact))
    assert rounded.history[-1].loss == pytest.approx(exact.history[-1].loss, rel=0.02)


def test_a_training_moves_to_a_machine_without_bfloat16_and_back_and_says_so_once(
    processor, store, tmp_path, caplog
):
    job = make_job(store, tmp_path)
    stopped = replace(job, stop_after_s=0.0)
    assert stopped_in(train(stopped).parts) == [("bfloat16", 1)]
    processor(None)
    assert stopped_in(train(stopped).parts) == [("bfloat16", 1), ("float32", 1)]
    told = [record.message for record in caplog.records if "goes on in float32" in record.message]
    assert len(told) == 1
    assert "were in bfloat16" in told[0]
    assert stopped_in(train(stopped).parts) == [("bfloat16", 1), ("float32", 2)]
    processor("AMX")
    parts = train(job).parts
    assert stopped_in(parts) == [("bfloat16", 1), ("float32", 2), ("bfloat16", RECIPE.steps - 3)]
    checkpoint = load_checkpoint(job.checkpoints)
    assert checkpoint is not None
    assert tuple(Part(**part) for part in checkpoint.state["parts"]) == parts


def test_a_training_changes_its_precision_only_when_asked_to(processor, store, tmp_path):
    job = make_job(store, tmp_path, stop_after_s=0.0)
    train(replace(job, precision="float32"))
    assert stopped_in(train(job).parts) == [("float32", 2)]
    asked = train(replace(job, precision="bfloat16")).parts
    assert stopped_in(asked) == [("float32", 2), ("bfloat16", 1)]
