"""Where a report goes besides its file: the MLflow run, a Prefect artifact that links to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_link_artifact

from flows.progress import say
from flows.reporting import MLFLOW_PAGE, mlflow_command
from flows.settings import settings
from pipeline.report import Report
from pipeline.report_files import to_files
from pipeline.report_page import Page, save_page
from storage.recorded_runs import REPORT_TAG
from storage.tracking import TrackedRun

FOLDER = "report"
"""Below a run's artifacts."""
PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """What became of a report."""

    path: str | None = None
    """Of the HTML page; None if there is none."""
    note: str = ""
    """Why there is none, if something went wrong."""


def write_report(run: TrackedRun, path: Path, make: Callable[[], Report]) -> WrittenReport:
    """Make a report, write its page to a file, record and link it.

    It stops no other work: an error becomes the note.
    """
    try:
        report = make()
        log_report(run, report, save_page(report, path))
        link_report(run.page_at(mlflow_server()), path)
    except Exception as error:
        return WrittenReport(note=f"no report: {type(error).__name__}: {error}")
    say(f"report {path}")
    return WrittenReport(path=str(path))


def log_report(run: TrackedRun, report: Report, page: Page) -> None:
    """Record a report: the page, its charts, and all that it can be made from again."""
    for path, content in {**page_files(page), **to_files(report)}.items():
        run.log_bytes(content, f"{FOLDER}/{path}")
    run.log_tags({REPORT_TAG: FOLDER})


def page_files(page: Page) -> Mapping[str, bytes]:
    """Return the page and its charts as files, by path."""
    charts = {f"{name}.png": png for name, png in page.charts.items()}
    return {PAGE: page.html.encode(), **charts}


def link_report(run_page: str | None, path: Path) -> None:
    """Leave a link to a report as a Prefect artifact: to MLflow's copy, or to the file.

    `run_page` is the address of the MLflow run's page; None if it was not recorded.
    """
    where = str(path)
    if run_page is None:
        link = path.absolute().as_uri()
    else:
        link = f"{run_page}/artifacts/{FOLDER}/{PAGE}"
        where += "" if settings().tracking_uri else f"; for the link first: {mlflow_command()}"
    create_link_artifact(
        link, f"Report ({where})", key="report", description=f"HTML report, also at {path}"
    )


def mlflow_server() -> str:
    """Return the address of MLflow's pages."""
    return settings().tracking_uri or MLFLOW_PAGE
