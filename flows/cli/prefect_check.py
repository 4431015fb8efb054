"""Prefect's server: does it answer, take our credentials; which runs were left running."""

import time
from urllib.parse import urlsplit

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

from flows.cli.command_runs import abandoned_runs, close_abandoned_runs
from pipeline.health.findings import Check, Problem, left_running
from storage.shown import reason_of, shown_uri

REFUSED = (401, 403)


def check_prefect(url: str, *, mend: bool) -> Check:
    """Ask the server at PREFECT_API_URL; `mend` ends runs whose process is gone."""
    start = time.monotonic()
    key, auth = PREFECT_API_KEY.value(), PREFECT_API_AUTH_STRING.value()
    try:
        with SyncPrefectClient(url, api_key=key, auth_string=auth) as client:
            abandoned = (close_abandoned_runs if mend else abandoned_runs)(client)
            ms = 1000 * (time.monotonic() - start)
            version = _version(client)
    except (httpx.HTTPError, PrefectException, ValueError) as error:
        return Check(name="Prefect", where=shown_uri(url), problems=(_explained(url, error),))
    facts = {
        "version": version,
        "answers in ms": ms,
        "credentials": "accepted" if key or auth else "none",
        **({"runs ended": len(abandoned)} if mend else {}),
    }
    problems = (*_version_problems(version), *left_running(abandoned, mended=mend))
    return Check(name="Prefect", where=shown_uri(url), facts=facts, problems=problems)


def _version(client: SyncPrefectClient) -> str:
    """Return the server's version; Prefect Cloud does not tell it."""
    try:
        return client.api_version()
    except httpx.HTTPStatusError:
        return "unknown"


def _version_problems(version: str) -> tuple[Problem, ...]:
    ours = prefect.__version__
    if version == "unknown" or version.split(".")[0] == ours.split(".")[0]:
        return ()
    what = f"is Prefect {version}, here it is {ours}: another major version"
    return (Problem(what=what, mend=f"pip install prefect=={ours}  # where the server runs"),)


def _explained(url: str, error: Exception) -> Problem:
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in REFUSED:
        return Problem(
            what="refuses this process's credentials, or wants some",
            mend="export PREFECT_API_AUTH_STRING=...  # Prefect Cloud: PREFECT_API_KEY",
        )
    if isinstance(error, httpx.HTTPStatusError | ValueError):
        what = f"does not answer as Prefect's API does: {reason_of(error)}"
        return Problem(what=what, mend="export PREFECT_API_URL=http://HOST:4200/api")
    place = urlsplit(shown_uri(url))
    mend = f"prefect server start --host {place.hostname} --port {place.port}  # on that host"
    return Problem(what=f"does not answer: {reason_of(error)}", mend=mend)
