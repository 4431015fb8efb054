"""Where reports go: file, MLflow run, Prefect link; the report flow makes an earlier one again."""

from dataclasses import replace
from functools import partial

from prefect import flow

from flows.reporting.evaluation_report import recorded_curves
from flows.reporting.pages import mlflow_server
from flows.settings import settings
from flows.steps.publishing import default_path, link_report, page_files
from pipeline.reports.html import save_page
from pipeline.reports.report_data import ReportedNetwork, from_files
from storage.tracking.recorded_runs import LATEST, RecordedRun, RecordedRuns


@flow(name="report", flow_run_name="{run}")
def report(run: str = LATEST, out: str | None = None) -> str:
    """Make the HTML report of a study or an evaluation again, from what MLflow holds.

    Scores, pictures and analyses are those that the run recorded, the loss curves those of the
    training runs; the page is today's. MLflow's copy is replaced. Returns the page's path.

    Args:
        run: id of an MLflow run, name of a study or of a run (the newest of it), or `latest`
        out: file or URI to write (default: report.html in the workspace's reports/NAME)
    """
    runs = RecordedRuns(settings().mlflow_uri)
    found = runs.find(run)
    made = from_files(partial(runs.read, found))
    made = replace(made, networks=tuple(_with_curves(network) for network in made.networks))
    path = out or default_path(found.name)
    page = save_page(made, path)
    runs.write(found, page_files(page))
    link_report(_page_of(found), path)
    return path


def _with_curves(network: ReportedNetwork) -> ReportedNetwork:
    """Return a network with the curves of its training run as MLflow holds them."""
    if network.training_run is None:
        return network
    loss, held_out = recorded_curves(network.training_run)
    return replace(
        network, loss=loss or network.loss, validation_psnr=held_out or network.validation_psnr
    )


def _page_of(found: RecordedRun) -> str:
    return f"{mlflow_server().rstrip('/')}/#/experiments/{found.experiment_id}/runs/{found.run_id}"
