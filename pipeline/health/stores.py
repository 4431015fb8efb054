"""What killed builds left in patch stores, and what a verification found."""

from collections.abc import Iterator
from shlex import quote

from pipeline.health.findings import Check, Problem
from storage import files
from storage.files import StoreError
from storage.patches.upkeep import gc, last_verification
from storage.patches.versions import open_store, version_numbers
from storage.shown import shown_uri


def check_stores(root: str) -> Check:
    """Look into every store below a folder or URI; nothing is changed, and no shard is read."""
    below = [files.join(root, name) for name in files.list_names(root)]
    uris = [uri for uri in below if files.list_names(files.join(uri, "shards"))]
    problems = [problem for uri in uris for problem in _problems(uri)]
    return Check(
        name="builds",
        where=shown_uri(root),
        facts={"stores": len(uris)},
        problems=tuple(problems),
    )


def _problems(uri: str) -> Iterator[Problem]:
    try:
        store = open_store(uri)
        kept = len(version_numbers(uri))
        left = gc(uri, keep=kept, dry_run=True)
    except StoreError as error:
        mend = f"qfactory patches build --store {quote(uri)} ...  # the command that began it"
        yield Problem(what=str(error), mend=mend, stops_work=False)
        return
    if left.files:
        what = f"{uri}: {left.files} files of killed builds, {left.bytes / 1e6:.1f} MB"
        mend = f"qfactory patches gc {quote(uri)} --keep {kept}"
        yield Problem(what=what, mend=mend, stops_work=False)
    verified = last_verification(store)
    if verified is not None and verified.damaged:
        what = f"{store.name}: {verified.damaged} shards were damaged at {verified.at}"
        yield Problem(what=what, mend=store.repair_command)
