"""Warnings of workers: whole, and told where the work was asked for, with what they are about."""

import logging
import pickle

import pytest

from pipeline.cluster import ray_map
from pipeline.logs import about, fields_now, tell, warnings_sent_to
from pipeline.training.ray_train import run_training
from tests.support.training_recipes import RECIPE, make_job, make_store

logger = logging.getLogger("storage.somewhere")


def warn(number):
    """Log what a task might, in its process."""
    with about(shard=f"shard-{number}"):
        logger.info("nobody asked")
        try:
            raise OSError("no such disk")
        except OSError:
            logger.exception("number %d", number)
    return number


def test_a_record_travels_whole_and_with_what_it_is_about(caplog):
    records = []
    with warnings_sent_to(lambda record: records.append(pickle.dumps(record))):
        warn(7)
    warn(8)
    (record,) = map(pickle.loads, records)
    caplog.clear()
    tell([record])
    (told,) = caplog.records
    assert (told.name, told.levelname, told.shard) == (logger.name, "ERROR", "shard-7")
    first, *traceback = told.getMessage().splitlines()
    assert (first, traceback[-1]) == ("number 7", "OSError: no such disk")


def test_what_records_are_about_ends_with_the_block():
    with about(recipe="arcnn-qf10"), about(shard="a"):
        assert fields_now() == {"recipe": "arcnn-qf10", "shard": "a"}
    assert fields_now() == {}


@pytest.mark.slow
def test_warnings_of_tasks_and_of_training_workers_arrive_here(ray_cluster, tmp_path, caplog):
    assert sorted(ray_map(warn, [1, 2])) == [1, 2]
    shards = {record.shard: record.getMessage() for record in caplog.records}
    assert shards.keys() == {"shard-1", "shard-2"}
    assert all("OSError: no such disk" in text for text in shards.values())

    caplog.clear()
    job = make_job(make_store(tmp_path), tmp_path / "out", RECIPE)
    damaged = tmp_path / "out" / "step-000000009" / "state.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{}")
    with pytest.raises(Exception, match="none of the checkpoints"):
        run_training(job, workers=1, name="logs", storage=str(tmp_path))
    (record,) = caplog.records
    assert "is missing or damaged" in record.getMessage()
    assert record.recipe == RECIPE.name
