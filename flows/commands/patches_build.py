"""The build command: it runs a flow that needs neither torch nor networks."""

from dataclasses import asdict
from typing import Any, cast

from flows.build_patches import build_patches
from flows.cli.command_runs import run_flow
from flows.cli.flow_commands import runs
from flows.console import out, print_json
from storage.patches.versions import StoreVersion


@runs(build_patches)
def build(*arguments: Any, json: bool = False, **options: Any) -> None:  # noqa: ANN401
    """Run the flow and name the store."""
    version = cast(StoreVersion, run_flow(build_patches, *arguments, **options))
    if json:
        facts = {name: getattr(version, name) for name in ("uri", "number", "rows", "bytes")}
        print_json({**facts, "rejected": [asdict(reject) for reject in version.rejected]})
        return
    out.print(f"{version.name}: {version.rows:,} patches, {version.bytes / 1e6:.1f} MB")
