"""The temporary Prefect server of a command: it starts before anything else and ends with it.

Prefect's own starts late, gets the Ctrl-C that is meant for the command, which then cannot tell it
how its runs ended, and goes on for ever when the command is killed.
"""

import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from pipeline.timings import timed

START_S = 120.0
ENDS_S = 5.0  # after it has closed its socket
_started: list[tuple[int, subprocess.Popen[bytes]]] = []
"""The port and the process of this process's server, if it has one."""


class ServerError(Exception):
    """Prefect's temporary server did not start."""


def start() -> str:
    """Start a server, and return its address before it answers: its imports take seconds.

    It is out of reach of the terminal, and ends with this process, however that ends. A process has
    one at most.
    """
    if not _started:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            descriptor = listening.fileno()
            program = str(Path(__file__).with_name("prefect_server.py"))
            process = subprocess.Popen(
                [sys.executable, "-P", program, str(descriptor)],
                stdin=subprocess.PIPE,  # never written to: its end is the command's
                pass_fds=[descriptor],
                start_new_session=True,
            )
            _started.append((listening.getsockname()[1], process))
    return f"http://127.0.0.1:{_started[0][0]}/api"


@timed("wait for Prefect's server")
def wait() -> None:
    """Wait until the server of this process answers, if it has one. Raises ServerError."""
    for port, process in _started:
        connection = HTTPConnection("127.0.0.1", port, timeout=START_S)
        try:
            connection.request("GET", "/api/health")
            connection.getresponse()
        except OSError as error:
            try:
                how = f"ended with exit code {process.wait(ENDS_S)}"
            except subprocess.TimeoutExpired:
                how = str(error)
            raise ServerError(
                f"Prefect's temporary server did not start ({how}): see its messages above, or "
                "start one with `prefect server start` and set PREFECT_API_URL"
            ) from error
        finally:
            connection.close()
