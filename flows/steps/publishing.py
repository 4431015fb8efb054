"""Reports written, recorded in MLflow and linked from Prefect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_link_artifact

from flows.reporting.pages import mlflow_command, mlflow_server
from flows.reporting.score_tables import label_of
from flows.runtime import say
from flows.settings import settings
from pipeline.reports.html import Page, save_page
from pipeline.reports.report_data import Report, to_files
from pipeline.timings import timed
from storage.tracking.recorded_runs import REPORT_TAG
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
