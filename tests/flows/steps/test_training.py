"""What a training asks the cluster for."""

import pytest

from flows.steps import training
from flows.steps.training import TrainingPlan, gpus_a_worker


def plan(**options):
    return TrainingPlan(evaluate_on=("sample:test",), **{"workers": 1, **options})


@pytest.mark.parametrize(
    ("accelerator", "there", "asked"),
    [("cpu", 8, 0), ("gpu", 0, 0.5), ("A100", 0, 0.5), ("auto", 0, 0), ("auto", 1, 0.5)],
)
def test_only_auto_looks_at_what_is_there(monkeypatch, accelerator, there, asked):
    monkeypatch.setattr(training, "cluster_gpus", lambda: there)
    chosen = plan(accelerator=accelerator, gpus_per_worker=0.5)
    assert gpus_a_worker(chosen) == asked
    assert chosen.accelerator_type == ("A100" if accelerator == "A100" else None)


def test_several_workers_on_one_gpu_are_refused():
    with pytest.raises(ValueError, match="NCCL refuses two workers of a training on one GPU"):
        plan(workers=2, gpus_per_worker=0.5)
