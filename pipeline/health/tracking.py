"""MLflow: does it answer, take our credentials, keep files; which runs were left running."""

from pipeline.health.findings import Check, Problem, left_running
from storage.shown import shown_uri
from storage.tracking.server_state import UnfitServerError, ask_server


def check_tracking(uri: str, *, mend: bool) -> Check:
    """Ask a server (`http://`) or a database; `mend` ends runs whose process is gone."""
    try:
        state = ask_server(uri, end_abandoned=mend)
    except UnfitServerError as problem:
        problems = (Problem(what=str(problem), mend=problem.mend),)
        return Check(name="MLflow", where=shown_uri(uri), problems=problems)
    return Check(
        name="MLflow",
        where=shown_uri(uri),
        facts={
            "version": state.version,
            "answers in ms": state.ms,
            "credentials": "accepted" if state.has_credentials else "none",
            **({"files": "written and read back"} if state.keeps_files else {}),
            **({"runs ended": len(state.abandoned)} if mend else {}),
        },
        problems=left_running(state.abandoned, mended=mend),
    )
