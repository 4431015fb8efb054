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
    bucket, said = "/".join(root.split("/")[:3]), told.lower()
    mends = {
        "install s3fs": "pip install s3fs",
        "bucket does not exist": f"aws s3 mb {bucket}",
        "access key": "aws configure",
        "credentials": "aws configure",
        "token": "aws configure",
        "could not connect": f"aws s3 ls {bucket}",
        "disk is full": f"du -xh {quote(root)} | sort -h | tail",
        "permission denied": f'sudo chown -R "$USER" {quote(root)}',
    }
    otherwise = f"export {VARIABLES[name]}=URI  # of a place that all nodes can write to"
    return next((mend for part, mend in mends.items() if part in said), otherwise)
