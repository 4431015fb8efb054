"""Runs whose process is gone: when one counts as ended, and when it may be continued."""

from mlflow import MlflowClient
from mlflow.entities import Run

from storage.tracking.living_processes import is_gone, is_of_this_machine, owner
from storage.tracking.signs_of_life import is_silent

OWNER_TAG = "qfactory.owner"
"""The run's tag that names the process which works on it."""


def abandoned_runs(client: MlflowClient) -> list[str]:
    """Return the ids of running runs, of every experiment, whose process is gone.

    On this machine that is seen at once, on others by their silence.
    """
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    ours = f"tags.`{OWNER_TAG}` LIKE '%/%' and attributes.status = 'RUNNING'"
    running = client.search_runs(everywhere, ours) if everywhere else []
    return [run.info.run_id for run in running if _owner_is_gone(run)]


def end_abandoned_runs(client: MlflowClient) -> list[str]:
    """End as KILLED what `abandoned_runs` returns, and return it."""
    abandoned = abandoned_runs(client)
    for run_id in abandoned:
        client.set_tag(run_id, "error", "its process ended without a word")
        client.set_terminated(run_id, "KILLED")
    return abandoned


def _owner_is_gone(run: Run) -> bool:
    name = run.data.tags.get(OWNER_TAG, "")
    return is_gone(name) if is_of_this_machine(name) else is_silent(run.data.tags)


def may_be_continued(run: Run) -> bool:
    """Tell whether a run is ours already or nobody works on it."""
    ours = run.data.tags.get(OWNER_TAG) == owner()
    return ours or run.info.status != "RUNNING" or _owner_is_gone(run)
