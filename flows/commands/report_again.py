"""The report command."""

from typing import Annotated

from cyclopts import Parameter

from flows.cli.command_runs import run_flow
from flows.console import out as console
from flows.report import report as report_flow
from flows.reporting import pages
from storage.tracking.recorded_runs import LATEST


def report(
    run: str = LATEST, *, out: Annotated[str | None, Parameter(["--out", "-o"])] = None
) -> None:
    """Make the HTML report of a study or an evaluation again, from what MLflow holds of it.

    Args:
        run: id of an MLflow run, name of a study or of a run (the newest of it), or `latest`
        out: file or URI to write (default: report.html in the workspace's reports/NAME)
    """
    path = run_flow(report_flow, run, out)
    console.print(f"report:   {path}")
    console.print(f"MLflow:   {pages.mlflow_command()}")
