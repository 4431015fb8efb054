"""A door before a server: while it is shut, the server is away."""

import socket
import threading
from contextlib import suppress

from tests.support.processes import free_port


class Door:
    """A port of this machine that hands on what comes to a server's; open at first."""

    def __init__(self, server: tuple[str, int]):
        self.server = server
        self.port = free_port()
        self._inside: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        """Take connections again."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._take, args=(self._listening,), daemon=True).start()

    def shut(self) -> None:
        """End the connections that there are, and take no more."""
        for one in (self._listening, *self._inside):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._inside.clear()

    def _take(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                inside, _ = listening.accept()
                self._inside.append(inside)
                outside = socket.create_connection(self.server)
                for pair in ((inside, outside), (outside, inside)):
                    threading.Thread(target=_hand_on, args=pair, daemon=True).start()


def _hand_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65536):
            target.sendall(received)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
