"""Runs whose process is gone: when one counts as ended, and when it may be continued."""

from mlflow import MlflowClient
from mlflow.entities import Run

from storage.tracking.living_processes import is_gone, machine, owner

OWNER_TAG = "qfactory.owner"
"""The run's tag that names the process which works on it."""


def abandoned_runs(client: MlflowClient) -> list[str]:
    """Return the ids of running runs, of every experiment, whose process here is gone."""
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    ours = f"tags.`{OWNER_TAG}` LIKE '{machine()}/%' and attributes.status = 'RUNNING'"
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
    return is_gone(run.data.tags.get(OWNER_TAG, ""))


def may_be_continued(run: Run) -> bool:
    """Tell whether a run is ours already or nobody works on it."""
    ours = run.data.tags.get(OWNER_TAG) == owner()
    return ours or run.info.status != "RUNNING" or _owner_is_gone(run)
