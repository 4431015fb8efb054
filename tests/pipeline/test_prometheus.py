"""What is counted, read where Prometheus reads it: at the endpoint of a real Ray's node."""

from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from pipeline import prometheus
from pipeline.cluster import ray_map
from pipeline.prometheus import COUNTERS, STEPS, count, failures_counted
from pipeline.training.ray_train import run_training
from storage.files import StoreError
from tests.support.endpoint import counted_in_time
from tests.support.store_images import build, image_folder, texture_file
from tests.support.training_recipes import RECIPE, STAGE, make_job

COUNTED = replace(RECIPE, name="counted-qf10", stages=(replace(STAGE, steps=25),))


@pytest.mark.slow
def test_a_build_a_training_and_a_failure_are_seen_at_rays_endpoint(ray_cluster, tmp_path):
    photos = image_folder(tmp_path / "photos")
    texture_file(photos / "small.png", 16, 16)
    store = build(photos, tmp_path / "store", parallel=ray_map).version
    job = make_job(store, tmp_path / "out", COUNTED)
    run_training(job, workers=1, name="counted", storage=str(tmp_path))

    @failures_counted("count")
    def fails():
        raise StoreError("there is none")

    with pytest.raises(StoreError):
        fails()

    training = (COUNTED.name, COUNTED.architecture, store.dataset)
    exactly = {
        ("qfactory_shards_built_total", store.dataset): len(store.shards),
        ("qfactory_patches_built_total", store.dataset): store.rows,
        ("qfactory_images_rejected_total", store.dataset): 1,
        ("qfactory_training_steps_total", *training): 25,
        ("qfactory_training_samples_total", *training): 25 * STAGE.batch,
        ("qfactory_checkpoints_total", *training): 1,
        ("qfactory_failures_total", "count", "StoreError"): 1,
    }
    seconds = {
        ("qfactory_training_data_wait_seconds_total", *training),
        ("qfactory_checkpoint_seconds_total", *training),
    }
    found = counted_in_time({**exactly, **dict.fromkeys(seconds, 1e-9)})
    assert {series: found.get(series) for series in exactly} == exactly
    assert all(0 < found.get(series, 0) < 60 for series in seconds)


def test_who_is_stopped_has_not_failed_and_nothing_counts_for_nobody(monkeypatch):
    told = []
    monkeypatch.setattr(prometheus, "_send", [])
    prometheus.send_to(lambda *counted: told.append(counted))
    with pytest.raises(CancelledError), failures_counted("train"):
        raise CancelledError
    count(STEPS, 0, {})
    prometheus.send_to(None)
    count(STEPS, 1, {})
    assert told == []


@pytest.mark.parametrize("counter", COUNTERS, ids=lambda counter: counter.name)
def test_names_and_tags_are_those_of_the_field(counter):
    assert counter.name.startswith("qfactory_")
    assert counter.name.endswith("_total")
    assert counter.help
    assert 1 <= len(counter.tags) <= 3
