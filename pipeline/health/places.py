"""The roots of stores, checkpoints and artifacts: can they be written to, and what to do if not."""

from collections.abc import Iterator, Mapping
from shlex import quote

from pipeline.health.findings import Check, Problem
from storage.shown import shown_uri

VARIABLES = {
    "stores": "QFACTORY_STORES",
    "checkpoints": "QFACTORY_CHECKPOINTS",
    "artifacts": "QFACTORY_WORKSPACE",
}
"""Name of a root -> the variable that says where it is."""


def check_places(roots: Mapping[str, str], told: Mapping[str, str]) -> list[Check]:
    """Return a check a root (name -> URI), of what `node_probe.probe` told on this machine."""
    return [
        Check(
            name=name,
            where=shown_uri(root),
            facts={} if told[name] else {"written": "and read back"},
            problems=tuple(place_problems({name: root}, told)),
        )
        for name, root in roots.items()
    ]


def place_problems(
    roots: Mapping[str, str], told: Mapping[str, str], on: str = ""
) -> Iterator[Problem]:
    """Yield a problem for each root that something was wrong with; `on` ends the command."""
    for name, root in roots.items():
        if told[name]:
            what, mend = f"{root} {told[name]}", f"{_mend(name, root, told[name])}{on}"
            yield Problem(what=shown_uri(what), mend=shown_uri(mend))


def _mend(name: str, root: str, told: str) -> str:
    bucket = "/".join(root.split("/")[:3])
    if "install s3fs" in told.lower():
        return "pip install s3fs"
    if "bucket does not exist" in told:
        return f"aws s3 mb {bucket}"
    if root.startswith("s3://"):
        return f"aws s3 ls {bucket}"
    if "disk is full" in told:
        return f"du -xh {quote(root)} | sort -h | tail"
    if "Permission denied" in told:
        return f'sudo chown -R "$USER" {quote(root)}'
    return f"export {VARIABLES[name]}=URI_THAT_ALL_NODES_REACH"
