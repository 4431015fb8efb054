"""One file over HTTP through pooch: resumed where it broke off, kept only if its hash is right."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pooch
import requests

from pipeline.datasets.references import DatasetError

CHUNK_BYTES = 1 << 15  # at most so much is fetched twice after a break
TIMEOUT_S = 30
PAUSES_S = (1.0, 4.0, 15.0)
"""After each of them a broken connection is tried again."""

OnBytes = Callable[[int], None]
"""Called with the bytes that are there."""


def download(
    url: str,
    target: Path,
    sha256: str,
    *,
    incoming: Path,
    on_bytes: OnBytes = lambda done: None,
) -> None:
    """Put the file of a URL at `target`, or raise DatasetError and leave `target` as it was.

    What has arrived waits in the folder `incoming`, under the hash, so that the next attempt or the
    next call goes on from there. A file with another hash is deleted.
    """
    pooch.get_logger().setLevel(logging.WARNING)  # it announces every file by itself
    # Any: pooch's annotation gives a downloader's parameters the names of a processor's
    downloader: Any = partial(_fetch_resuming, incoming / f"{sha256}.part", on_bytes)
    try:
        whole = pooch.retrieve(
            url, f"sha256:{sha256}", fname=sha256, path=incoming, downloader=downloader
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        Path(whole).replace(target)
    except ValueError as error:
        raise DatasetError(
            f"{url}: the file's SHA-256 is not the pinned {sha256}, so it was deleted. Try again; "
            "if it happens again the server has another file, choose a mirror with --base-url"
        ) from error
    except requests.RequestException as error:
        raise DatasetError(
            f"{url}: {_reason(error)}. What has arrived is kept: run the same command again to "
            "go on from there, or choose a mirror with --base-url"
        ) from error
    except OSError as error:
        raise DatasetError(f"{target}: {error.strerror or error}; free or choose a disk") from error


def _fetch_resuming(
    part: Path, on_bytes: OnBytes, url: str, output_file: str, _pooch: object
) -> None:
    """Bring the URL's bytes into `output_file`, by way of `part`."""
    for pause in (*PAUSES_S, None):
        try:
            _append(url, part, on_bytes)
            break
        except requests.RequestException as error:
            if pause is None or _is_final(error):
                raise
            time.sleep(pause)
    part.replace(output_file)


def _append(url: str, part: Path, on_bytes: OnBytes) -> None:
    """Fetch what `part` lacks; from the start where the server cannot continue."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if done and response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # nothing is left to fetch, or the server's file is a shorter one
            raise requests.ConnectionError("the server has nothing after what had arrived")
        response.raise_for_status()
        continued = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if not (response.status_code == requests.codes.partial_content and continued):
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                on_bytes(done)
    if total is not None and done != total:
        raise requests.ConnectionError(f"the connection ended after {done} of {total} bytes")


def _is_final(error: requests.RequestException) -> bool:
    """Tell whether trying again is pointless: the server's answer was a refusal."""
    status = error.response.status_code if error.response is not None else 500
    return 400 <= status < 500 and status not in (408, 429)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    return f"the connection failed ({type(error).__name__})"
