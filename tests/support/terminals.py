"""Commands in a terminal of their own, whose keys reach every process in the foreground."""

import os
import pty
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CTRL_C = b"\x03"


class Terminal:
    """One command in a pseudo-terminal, and what it has shown there so far."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]):
        """Start the command in a folder."""
        self.text = ""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(command[0], list(command), {**environment, "TERM": "xterm"})

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Wait until the command has shown a text. Raises TimeoutError with all that it has."""
        end = time.monotonic() + seconds
        while text not in self.text:
            if time.monotonic() > end or not self._read():
                raise TimeoutError(f"no {text!r} in:\n{self.text}")

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._screen, key)

    def end(self, seconds: float = 120) -> tuple[int, float]:
        """Wait for the command; return its exit code and the seconds that it took."""
        start = time.monotonic()
        while self._read() and time.monotonic() < start + seconds:
            pass
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > start + seconds:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.05)
        os.close(self._screen)
        return os.waitstatus_to_exitcode(ended[1]), time.monotonic() - start

    def _read(self) -> bool:
        """Take in what is shown within a moment; tell whether the terminal is still open."""
        if not select.select([self._screen], [], [], 0.2)[0]:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        try:
            shown = os.read(self._screen, 65536)
        except OSError:  # Linux: nobody has the other side any more
            return False
        self.text += shown.decode(errors="replace")
        return bool(shown)
