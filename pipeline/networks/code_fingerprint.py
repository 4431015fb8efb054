"""Which code decides a network's weights, and scores: fingerprints tell old ones from new ones."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import PIL
import torch
from PIL import features

from models import ARCHITECTURES

LOOP = ("pipeline.training.loop", "models.transfer")  # the latter through the list of networks
SCORING = ("pipeline.evaluation.protocol",)
FOLLOWED = ("models", "pipeline")
OURS = (*FOLLOWED, "storage")
LISTS = ("models", "pipeline", "pipeline.recipes")
"""Packages whose `__init__` only lists what there is: a new network changes no other's weights."""


@cache
def code_fingerprint(architecture: str) -> str:
    """Return a hexadecimal SHA-256 over the sources that decide a network's weights.

    They are the network's own module and `pipeline.training.loop`, with everything of models/ and
    pipeline/ that these import, directly or not: the losses, the loader and its plan of an epoch,
    the loop, the optimisers, what a recipe is, how weights are saved. torch's version counts too.
    The lists of networks and of recipes do not count, nor does storage/, whose part of the result
    is the patches themselves (the store version's content). What the code says counts, not where
    it stands: comments, docstrings, layout, the order of definitions, the names of our modules and
    what they import of each other do not, so that moving a file makes nobody train again.
    """
    return _fingerprint(ARCHITECTURES[architecture].__module__, *LOOP)


@cache
def evaluation_fingerprint() -> str:
    """Return the same over the sources that decide scores, and the encoder's version.

    They are `pipeline.evaluation.protocol` and what it imports: compression, metrics, tiling.
    """
    encoder = features.version("jpg") or "unknown"
    return hashlib.sha256(
        f"{_fingerprint(*SCORING)}{PIL.__version__}{encoder}".encode()
    ).hexdigest()


def _fingerprint(*starts: str) -> str:
    said = {one for path in sources_of(*starts).values() for one in statements_of(path)}
    return hashlib.sha256("\n".join([torch.__version__, *sorted(said)]).encode()).hexdigest()


def statements_of(path: Path) -> list[str]:
    """Return a file's definitions, without strings that stand alone and imports of our own code."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _says_nothing(part)]  # type: ignore[attr-defined]
    return [ast.dump(part) for part in tree.body]


def _says_nothing(node: ast.AST) -> bool:
    """Tell whether a statement is a string that stands alone, or an import of our own code."""
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or str(node.module).split(".")[0] in OURS
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def sources_of(*starts: str) -> dict[str, Path]:
    """Return the modules of models/ and pipeline/ behind some modules, themselves included."""
    found: dict[str, Path] = {}
    todo = [*starts]
    while todo:
        name = todo.pop()
        if name in found or name in LISTS or name.split(".")[0] not in FOLLOWED:
            continue
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            found[name] = Path(spec.origin)
            todo.extend(_imports(found[name]))
    return found


def _imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports; `from a import b` may mean the module `a.b`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module.split(".")[0] in FOLLOWED and _is_package(node.module):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_package(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None
