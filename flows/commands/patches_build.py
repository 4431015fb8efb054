"""The build command: it runs a flow that needs neither torch nor networks."""

from dataclasses import asdict
from typing import Any, cast

from flows.build_patches import build_patches
from flows.cli.command_runs import run_flow
from flows.cli.flow_commands import runs
from flows.console import out, print_json
from pipeline.patches.plan_store import PlannedBuild
from storage.patches.versions import StoreVersion


@runs(build_patches)
def build(*arguments: Any, json: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Run the flow and name the store, or say what it would do."""
    made = cast(StoreVersion | PlannedBuild, run_flow(build_patches, *arguments, **options))
    if isinstance(made, PlannedBuild):
        _tell_planned(made, json=json)
    elif json:
        facts = {name: getattr(made, name) for name in ("uri", "number", "rows", "bytes")}
        print_json({**facts, "rejected": [asdict(reject) for reject in made.rejected]})
    else:
        out.print(f"{made.name}: {made.rows:,} patches, {made.bytes / 1e6:.1f} MB")


def _tell_planned(planned: PlannedBuild, *, json: bool) -> None:
    if json:
        print_json(asdict(planned))
        return
    out.print(
        f"{planned.store}, not written: {planned.rows:,} patches; images: {planned.images_new:,} "
        f"new, {planned.images_changed:,} changed, {planned.images_gone:,} gone; shards: "
        f"{planned.shards_to_write:,} to write ({planned.rows_to_write:,} patches, "
        f"{planned.bytes_to_write / 1e6:.1f} MB of pixels), {planned.shards_to_reuse:,} to reuse"
    )
