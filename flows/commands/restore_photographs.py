"""The restore command: JPEG photographs without their artifacts; no Prefect, no Ray."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from flows.console import counted, notes, print_json, show_table, shown
from flows.planning.restore_plan import Job, Kind, plan_restoration
from flows.planning.restoring_networks import available_networks
from pipeline.networks.devices import PrecisionChoice
from pipeline.restoring.one_photograph import (
    UNCHANGED,
    Network,
    Restored,
    open_asked,
    restore_jpeg,
)
from pipeline.served.photographs import MAX_PIXELS
from storage import files
from storage.files import StoreError

SOME_SKIPPED = 1
JPEG_START = b"\xff\xd8\xff"
TOLD = (OSError, StoreError, ValueError)
"""Errors whose message alone says what is wrong with a file; of others the type is told too."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file."""

    source: str
    target: str
    restored: Restored | None = None
    """None if it was skipped."""
    reason: str = ""
    """Why it was skipped."""

    def as_json_row(self) -> dict[str, object]:
        """Return what `--json` prints of the file."""
        row: dict[str, object] = {"source": self.source, "target": self.target}
        if self.restored is None:
            return {**row, "skipped": self.reason}
        names = ("network", "precision", "qf", "exact", "width", "height", "notes")
        return {**row, **{name: getattr(self.restored, name) for name in names}}


def restore(
    *inputs: str,
    output: Annotated[str, Parameter(name=("--output", "-o"))],
    model: str | None = None,
    format: Kind | None = None,
    force: bool = False,
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS,
    precision: PrecisionChoice = "auto",
    json: bool = False,
) -> int:
    """Restore JPEG photographs, each with the network that suits its quality factor.

    Exit code 0 if every file was restored or is good already, 1 if some were skipped.

    Args:
        inputs: files, folders (*.jpg, *.jpeg and *.jpe below them) and globs in quotes
        output: a folder, or for one file a name in .png or .jpg
        model: NAME, models:/NAME@ALIAS or models:/NAME/VERSION of the registry, a shipped network,
            or weights; used whatever the quality factor (default: chosen for each file)
        format: what files in a folder become (default: png)
        force: replace new files that exist already
        max_pixels: larger pictures are skipped
        precision: what networks compute in; auto is bfloat16 where the processor has it and the
            network is known to lose less than 0.005 dB by it, else float32
        json: print one JSON array of files and nothing else
    """
    if not inputs:
        raise ValueError("nothing to restore: name files, folders or globs")
    plan = plan_restoration(inputs, output, format)
    networks = available_networks(model, precision)
    open_asked(networks)
    _check_writable(plan.folder)
    done = []
    with shown("restore") as update:
        for job in counted(plan.jobs, len(plan.jobs), update):
            done.append(_restore_file(job, plan.kind, networks, force, max_pixels))
    if json:
        print_json([outcome.as_json_row() for outcome in done])
    else:
        _summarise(done)
    return SOME_SKIPPED if any(outcome.restored is None for outcome in done) else 0


def _check_writable(folder: Path) -> None:
    """Raise ValueError unless files can be made in a folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{folder} cannot be written ({reason}): choose another output") from error


def _restore_file(
    job: Job, kind: Kind, networks: Sequence[Network], force: bool, max_pixels: int
) -> Outcome:
    """Restore one file; whatever goes wrong with it becomes its reason, and the others go on."""
    source, target = str(job.source), str(job.target)
    try:
        if job.target.exists() and not force:
            raise ValueError(f"{target} exists: --force replaces it")
        data = _content(job.source)
        restored = restore_jpeg(data, networks, kind=kind, max_pixels=max_pixels)
        files.write_bytes(target, restored.content)
    except Exception as error:
        message = " ".join(str(error).split())
        if not (message and isinstance(error, TOLD)):
            message = f"{type(error).__name__}: {message}"
        return Outcome(source=source, target=target, reason=message)
    return Outcome(source=source, target=target, restored=replace(restored, content=b""))


def _content(path: Path) -> bytes:
    """Return a file's content; only its start if it is no JPEG, for that is told by its start."""
    with path.open("rb") as file:
        start = file.read(len(JPEG_START))
        return start + file.read() if start == JPEG_START else start


def _summarise(done: Sequence[Outcome]) -> None:
    by_network: dict[str, list[Restored]] = defaultdict(list)
    for outcome in done:
        if outcome.restored is not None:
            by_network[outcome.restored.network].append(outcome.restored)
    noted = [(o.source, note) for o in done if o.restored for note in o.restored.notes]
    skipped = [(o.source, o.reason) for o in done if o.restored is None]
    if by_network:
        show_table([_line(name, group) for name, group in by_network.items()])
    if noted:
        show_table([{"file": file, "note": note} for file, note in noted], "\nWorth knowing")
    if skipped:
        show_table([{"file": file, "why": why} for file, why in skipped], "\nSkipped")
    count = len(done) - len(skipped)
    notes.print(f"{count} of {len(done)} files written", markup=False)


def _line(network: str, group: Sequence[Restored]) -> dict[str, object]:
    qfs = sorted({restored.qf for restored in group})
    span = str(qfs[0]) if len(qfs) == 1 else f"{qfs[0]} to {qfs[-1]}"
    label = "none: left as they are" if network == UNCHANGED else network
    computed = group[0].precision or ""
    return {"network": label, "files": len(group), "QF": span, "computed in": computed}
