"""A report as files that it can be made from again: one JSON, and the pictures beside it."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from pipeline.report import Layer, Picture, Report

CONTENT = "report.json"


class ReportError(ValueError):
    """A report's files are missing or damaged; the message says what to do."""


def to_files(report: Report) -> dict[str, bytes]:
    """Return the files by path: CONTENT, and `pictures/<number>-<layer>.webp`."""
    bare = replace(report, pictures=tuple(replace(p, layers={}) for p in report.pictures))
    files = {CONTENT: json.dumps(asdict(bare), indent=1).encode()}
    for number, picture in enumerate(report.pictures):
        files |= {_path(number, layer): content for layer, content in picture.layers.items()}
    return files


def from_files(read: Callable[[str], bytes]) -> Report:
    """Return the report that `to_files` was given.

    `read` returns a file's content by its path. Raises ReportError for a damaged or foreign
    CONTENT, and what `read` raises.
    """
    try:
        bare = TypeAdapter(Report).validate_json(read(CONTENT))
    except ValidationError as error:
        raise ReportError(
            f"{CONTENT} is damaged or of another version of qfactory ({error.error_count()} "
            "errors): run the study or the evaluation again"
        ) from error
    pictures = [_filled(number, picture, read) for number, picture in enumerate(bare.pictures)]
    return replace(bare, pictures=tuple(pictures))


def _filled(number: int, picture: Picture, read: Callable[[str], bytes]) -> Picture:
    layers: tuple[Layer, ...] = get_args(Layer)
    return replace(picture, layers={layer: read(_path(number, layer)) for layer in layers})


def _path(number: int, layer: Layer) -> str:
    return f"pictures/{number + 1}-{layer}.webp"
