"""Commands that compare recipes."""

from dataclasses import asdict
from typing import Any, cast

from flows.analyze import Analysis
from flows.analyze import analyze as analyze_flow
from flows.cli.command_runs import run_flow
from flows.cli.flow_commands import runs
from flows.console import out, print_json, show_rows, show_table
from flows.reporting import pages
from pipeline.recipes.comparisons import COMPARISONS


def list_comparisons(*, json: bool = False) -> None:
    """List what can be compared: recipes that differ in one thing.

    Args:
        json: print one JSON array of rows and nothing else
    """
    rows = [
        {"comparison": name, "recipes": len(one.recipes), "what": one.title, "as": one.source}
        for name, one in COMPARISONS.items()
    ]
    show_rows(rows, json=json)


@runs(analyze_flow)
def recipes(*arguments: Any, json: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Run the flow and show what came out."""
    analysis = cast(Analysis, run_flow(analyze_flow, *arguments, **options))
    if json:
        print_json(asdict(analysis))
        return
    out.print(f"\n{analysis.title} ({analysis.source})")
    show_table(analysis.rows, spare=("psnr_b", "ssim", "MB"))
    out.print(f"\nconvergence: {analysis.chart}")
    for note in analysis.notes:
        out.print(f"[yellow]WARNING[/] {note}")
    out.print(f"MLflow:      {pages.mlflow_command()}")
