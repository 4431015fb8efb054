"""Which files are taken for JPEG photographs, and what the new files are called."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePath, PurePosixPath
from typing import Literal

Kind = Literal["png", "jpeg"]
"""Format of new files."""

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe")
"""Of files that are taken for JPEG photographs, in upper or lower case."""


def is_jpeg_name(path: PurePath) -> bool:
    """Tell whether a file is named like a JPEG."""
    return path.suffix.lower() in JPEG_SUFFIXES


def output_name(name: str, kind: Kind) -> str:
    """Return the path of a photograph's new file, below its folder; a JPEG keeps its name."""
    return name if kind == "jpeg" else str(PurePosixPath(name).with_suffix(".png"))


def check_distinct(outputs: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError if two photographs would have one output.

    `outputs` are pairs of a photograph and its new file.
    """
    inputs = defaultdict(list)
    for name, output in outputs:
        inputs[output].append(name)
    clashes = {output: names for output, names in inputs.items() if len(names) > 1}
    if clashes:
        output, names = next(iter(clashes.items()))
        more = f" ({len(clashes)} outputs have several inputs)" if len(clashes) > 1 else ""
        raise ValueError(
            f"{' and '.join(names[:2])} would both become {output}{more}: rename one, or restore "
            "them into different folders"
        )
