"""Where reports go: file, MLflow run, Prefect link; the report flow makes an earlier one again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_link_artifact

from flows.pages import mlflow_command, mlflow_server
from flows.progress import say
from flows.reporting.evaluation_report import recorded_curves
from flows.reporting.score_tables import label_of
from flows.settings import settings
from pipeline.reports.content import Report, ReportedNetwork, from_files, to_files
from pipeline.reports.html import Page, save_page
from pipeline.timings import timed
from storage.tracking.recorded_runs import LATEST, REPORT_TAG, RecordedRun, RecordedRuns
from storage.tracking.tracked_run import TrackedRun

FOLDER = "report"
"""Below a run's artifacts."""
PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What became of a report."""

    path: str | None = None
    """Path or URI of the HTML page; None if there is none."""
    note: str = ""
    """Why there is none, if something went wrong."""


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
    made = with_recorded_curves(from_files(partial(runs.read, found)))
    path = out or default_path(found.name)
    page = save_page(made, path)
    runs.write(found, page_files(page))
    link_report(_page_of(found), path)
    return path


def default_path(name: str) -> str:
    """Return where the page of a study or an evaluation goes if the user does not say."""
    return str(settings().reports / label_of(name) / PAGE)


@timed("write the report")
def write_report(run: TrackedRun, path: str, make: Callable[[], Report]) -> WrittenReport:
    """Make a report, write its page to a path or URI, record and link it.

    It stops no other work: an error becomes the note.
    """
    try:
        made = make()
        page = save_page(made, path)
        for name, content in {**page_files(page), **to_files(made)}.items():
            run.log_bytes(content, f"{FOLDER}/{name}")
        run.log_tags({REPORT_TAG: FOLDER})
        link_report(run.page_at(mlflow_server()), path)
    except Exception as error:
        return WrittenReport(note=f"no report at {path}: {type(error).__name__}: {error}")
    say(f"report {path}")
    return WrittenReport(path=path)


def page_files(page: Page) -> Mapping[str, bytes]:
    """Return the page and its charts as files, by path."""
    charts = {f"{name}.png": png for name, png in page.charts.items()}
    return {PAGE: page.html.encode(), **charts}


def link_report(run_page: str | None, path: str) -> None:
    """Leave a link to a report as a Prefect artifact: to MLflow's copy, or to the file.

    `run_page` is the address of the MLflow run's page; None if it was not recorded.
    """
    where = path
    if run_page is None:
        link = path if "://" in path else Path(path).absolute().as_uri()
    else:
        link = f"{run_page}/artifacts/{FOLDER}/{PAGE}"
        where += "" if settings().tracking_uri else f"; for the link first: {mlflow_command()}"
    create_link_artifact(
        link, f"Report ({where})", key="report", description=f"HTML report, also at {path}"
    )


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
