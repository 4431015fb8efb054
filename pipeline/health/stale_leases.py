"""Leases of builds and trainings whose holder ended without leaving: who it was."""

from pipeline.health.findings import Check, Problem
from storage import files
from storage.leases import leave, stale_holder
from storage.shown import shown_uri


def check_leases(stores: str, checkpoints: str, *, mend: bool) -> Check:
    """Look at the leases below the roots of stores and checkpoints; `mend` ends stale ones.

    Nobody waits for these for longer than `storage.leases.EXPIRES_S`; they tell what was cut off.
    """
    below = [files.join(checkpoints, name) for name in files.list_names(checkpoints)]
    leases = [uri for uri in below if uri.endswith(".lease")]
    leases += [files.join(stores, name, "lease") for name in files.list_names(stores)]
    held = [uri for uri in leases if files.list_names(uri)]
    stale = {uri: holder for uri in held if (holder := stale_holder(uri)) is not None}
    if mend:
        for uri in stale:
            leave(uri)
        return Check(
            name="leases", where=shown_uri(checkpoints), facts={"leases ended": len(stale)}
        )
    problems = tuple(
        Problem(
            what=shown_uri(f"{uri} is held by {holder}, which is gone: what it did was cut off"),
            mend="qfactory doctor --mend  # or the same command again, which goes on",
            stops_work=False,
        )
        for uri, holder in stale.items()
    )
    return Check(
        name="leases", where=shown_uri(checkpoints), facts={"stale": len(stale)}, problems=problems
    )
