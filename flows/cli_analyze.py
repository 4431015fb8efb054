"""Commands that compare recipes."""

from functools import wraps
from typing import Any, cast

from flows import reporting
from flows.analyze import Analysis
from flows.analyze import analyze as analyze_flow
from flows.command_runs import run_flow
from flows.console import out, show_table
from pipeline.recipes.comparisons import COMPARISONS


def list_comparisons() -> None:
    """List what can be compared: recipes that differ in one thing."""
    rows = [
        {"comparison": name, "recipes": len(one.recipes), "what": one.title, "as": one.source}
        for name, one in COMPARISONS.items()
    ]
    show_table(rows)


@wraps(analyze_flow.fn)
def recipes(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the flow's own parameters
    """Run the flow and show what came out."""
    analysis = cast(Analysis, run_flow(analyze_flow, *arguments, **options))
    out.print(f"\n{analysis.title} ({analysis.source})")
    show_table(analysis.rows)
    out.print(f"\nconvergence: {analysis.chart}")
    for note in analysis.notes:
        out.print(f"[yellow]WARNING[/] {note}")
    out.print(f"MLflow:      {reporting.mlflow_command()}")
