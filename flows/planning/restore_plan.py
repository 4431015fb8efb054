"""Which files a `qfactory restore` reads and which it writes, decided before anything runs."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.restoring.photo_names import (
    JPEG_SUFFIXES,
    Kind,
    check_distinct,
    is_jpeg_name,
    output_name,
)

KINDS: dict[str, Kind] = {".png": "png", **dict.fromkeys(JPEG_SUFFIXES, "jpeg")}
OTHER_PICTURES = (".avif", ".bmp", ".gif", ".heic", ".jxl", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file to restore."""

    source: Path
    target: Path
    """The new file."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that one command restores."""

    jobs: tuple[Job, ...]
    """No two of them have one source or one target, and no target is a source."""
    kind: Kind
    folder: Path
    """Where the new files, and folders of them, are written."""


def plan_restoration(inputs: Sequence[str], output: str, kind: Kind | None = None) -> Plan:
    """Decide what is read and written. Nothing is, yet.

    Args:
        inputs: files, folders (all *.jpg, *.jpeg, *.jpe below) and globs (the same of what matches)
        output: a folder, in which the tree below each folder or glob is kept; or, for one file, a
            name that ends in .png, .jpg, .jpeg or .jpe
        kind: format of the new files; None takes the output's suffix, or PNG

    Raises ValueError when an input does not exist or holds no JPEG, when two inputs would get one
    name, and when an output is one of the inputs.
    """
    out = Path(output)
    if not out.is_dir() and out.suffix.lower() in OTHER_PICTURES:
        raise ValueError(f"{output}: choose .png or .jpg, or a folder")
    if not out.is_dir() and out.suffix.lower() in KINDS:
        return _one_file(inputs, out, kind)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{output} is a file: choose a folder, or a name in .png or .jpg")
    kind = kind or "png"
    jobs = {}
    for name in inputs:
        for source, below in _found(name, out):
            target = out / output_name(below.as_posix(), kind)
            jobs.setdefault(source.resolve(), Job(source=source, target=target))
    _check(list(jobs.values()))
    return Plan(jobs=tuple(jobs.values()), kind=kind, folder=out)


def _one_file(inputs: Sequence[str], out: Path, kind: Kind | None) -> Plan:
    named = KINDS[out.suffix.lower()]
    if kind not in (None, named):
        raise ValueError(f"{out} is a name for {named}, and --format says {kind}: change one")
    if len(inputs) != 1 or not Path(inputs[0]).is_file():
        raise ValueError(f"{out} names one file: name a folder to restore several")
    job = Job(source=Path(inputs[0]), target=out)
    _check([job])
    return Plan(jobs=(job,), kind=named, folder=out.parent)


def _found(name: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the JPEGs that an input names, each with its path below the output folder."""
    path = Path(name)
    if path.is_file():
        yield path, Path(path.name)
        return
    if path.is_dir():
        root, candidates = path, sorted(path.rglob("*"))
    elif "://" in name:
        raise ValueError(f"{name}: only local files; the flow `restore-batch` takes buckets")
    elif not glob.has_magic(name):
        raise ValueError(f"{name}: there is no such file or folder")
    else:
        root = _fixed_part(path)
        matches = glob.glob(name, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute ones
        candidates = sorted(map(Path, matches))
    jpegs = [p for p in candidates if is_jpeg_name(p) and p.is_file()]
    jpegs = [p for p in jpegs if not _is_output_of_before(p, out, root)]
    if not jpegs:
        raise ValueError(f"{name}: no *.jpg, *.jpeg or *.jpe there")
    yield from ((path, path.relative_to(root)) for path in jpegs)


def _fixed_part(pattern: Path) -> Path:
    """Return the folder that a glob searches in: all before its first part with a wildcard."""
    parts = list(pattern.parts)
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _is_output_of_before(path: Path, out: Path, root: Path) -> bool:
    """Tell whether a file lies in an output folder that is itself inside the input folder."""
    inner = out.resolve()
    return root.resolve() in inner.parents and inner in path.resolve().parents


def _check(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise ValueError(f"{job.target} is itself an input: choose another output")
    check_distinct((str(job.source), str(job.target)) for job in jobs)
