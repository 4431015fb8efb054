"""Runs whose process is gone: when one counts as ended, and when it may be continued."""

from mlflow import MlflowClient
from mlflow.entities import Run

from storage.tracking.living_processes import is_gone, machine, owner

OWNER_TAG = "qfactory.owner"
"""The run's tag that names the process which works on it."""


def end_abandoned_runs(client: MlflowClient) -> list[str]:
    """End runs as KILLED, of every experiment, whose process on this machine is gone.

    Returns their ids.
    """
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    ours = f"tags.`{OWNER_TAG}` LIKE '{machine()}/%' and attributes.status = 'RUNNING'"
    running = client.search_runs(everywhere, ours) if everywhere else []
    abandoned = [run.info.run_id for run in running if _owner_is_gone(run)]
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
