"""The temporary Prefect server of a command: it ends when the command does, and not before."""

import os
import signal
import subprocess
import sys
from threading import Thread
from typing import Any

from fastapi import FastAPI
from prefect.server.api.server import SubprocessASGIServer, create_app
from prefect.settings import PREFECT_API_URL

from flows.settings import PROJECT


class TemporaryServer(SubprocessASGIServer):
    """Prefect's temporary server, out of reach of the terminal and bound to this process.

    Prefect's own gets the Ctrl-C that is meant for the command, which then cannot tell it how its
    runs ended, and it goes on for ever when the command is killed.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "--app-dir", str(PROJECT)),
                *("--factory", f"{__name__}:{bound_app.__name__}", "--log-level", "error"),
                *("--host", "127.0.0.1", "--port", str(self.port), "--lifespan", "on"),
            ],
            stdin=subprocess.PIPE,  # never written to: its end is the command's
            start_new_session=True,
        )


def start_temporary_server() -> None:
    """Start the server that this process uses, unless it has one: `PREFECT_API_URL`, or its own."""
    if not PREFECT_API_URL.value():
        TemporaryServer().start()  # Prefect finds it as the one without a given port


def bound_app() -> FastAPI:
    """Return Prefect's application; this process ends with what holds the end of its stdin."""
    Thread(target=_end_with_stdin, daemon=True).start()
    return create_app(ephemeral=True, final=True)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
