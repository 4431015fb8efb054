"""The report flow: the page of an earlier study or evaluation, made again from MLflow alone."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import flow

from flows.report_networks import recorded_curves
from flows.report_output import PAGE, link_report, mlflow_server, page_files
from flows.reporting import label_of
from flows.settings import settings
from pipeline.report import Report, ReportedNetwork
from pipeline.report_files import from_files
from pipeline.report_page import save_page
from storage.recorded_runs import LATEST, RecordedRun, RecordedRuns


@flow(name="report", flow_run_name="{run}")
def report(run: str = LATEST, out: Path | None = None) -> str:
    """Make the HTML report of a study or an evaluation again, from what MLflow holds.

    Scores, pictures and analyses are those that the run recorded, the loss curves those of the
    training runs; the page is today's. MLflow's copy is replaced. Returns the page's path.

    Args:
        run: id of an MLflow run, name of a study or of a run (the newest of it), or `latest`
        out: file to write (default: report.html in the workspace's reports/NAME)
    """
    runs = RecordedRuns(settings().mlflow_uri)
    found = runs.find(run)
    made = with_recorded_curves(from_files(partial(runs.read, found)))
    path = out if out is not None else settings().reports / label_of(found.name) / PAGE
    page = save_page(made, path)
    runs.write(found, page_files(page))
    link_report(_page_of(found), path)
    return str(path)


def with_recorded_curves(made: Report) -> Report:
    """Return a report with the loss curves of its training runs as MLflow holds them."""
    return replace(made, networks=tuple(_with_curves(network) for network in made.networks))


def _with_curves(network: ReportedNetwork) -> ReportedNetwork:
    if network.training_run is None:
        return network
    loss, held_out = recorded_curves(network.training_run)
    return replace(
        network, loss=loss or network.loss, validation_psnr=held_out or network.validation_psnr
    )


def _page_of(found: RecordedRun) -> str:
    return f"{mlflow_server().rstrip('/')}/#/experiments/{found.experiment_id}/runs/{found.run_id}"
