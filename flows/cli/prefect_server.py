"""The program of the temporary Prefect server: it imports nothing of ours.

It listens on an inherited socket, and ends with whoever holds the other end of its stdin.
"""

import os
import signal
import socket
import sys
from threading import Thread

import uvicorn
from prefect.server.api.server import create_app


def main(listening: int) -> None:
    """Serve on a listening socket, given as a file descriptor, until stdin ends."""
    Thread(target=_end_with_stdin, daemon=True).start()
    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    server.run(sockets=[socket.socket(fileno=listening)])


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]))
