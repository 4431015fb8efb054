"""The files of infra/ as tests read them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.project import PROJECT

INFRA = PROJECT / "infra"
KUBERNETES = INFRA / "kubernetes"
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY")
"""What is in the name of a variable that holds a secret."""


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file that are not empty."""
    return [document for document in yaml.load_all(path.read_text(), yaml.CSafeLoader) if document]


def pins() -> dict[str, str]:
    """Return the version of each package in infra/constraints.txt, by its name there."""
    lines = (INFRA / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def values_of(node: object, key: str) -> Iterator[Any]:
    """Yield what stands under a key, at any depth."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    if isinstance(node, dict) and key in node:
        yield node[key]
    for child in children:
        yield from values_of(child, key)


def hosts_of(text: str) -> set[str]:
    """Return the hosts that a value leads to: of its URLs, or of a bare HOST:PORT."""
    urls = re.findall(r"(?:https?|postgresql(?:\+\w+)?)://(?:\w+@)?([\w.-]+)", text)
    bare = re.fullmatch(r"([\w.-]+):\d+", text)
    return {*urls, *([bare[1]] if bare else [])}
