"""The terminal: results on stdout, everything about the work itself on stderr."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LINE_EVERY_S = 5.0
HEADINGS = {"ssim_gaussian": "ssim gauss.", "seconds_per_mpx": "s/Mpx"}

T = TypeVar("T")

out = Console(soft_wrap=True, highlight=False)
notes = Console(stderr=True, soft_wrap=True, highlight=False)


def show_table(rows: Sequence[Mapping[str, object]], title: str | None = None) -> None:
    """Print rows of one shape as a table; numbers to the right."""
    if not rows:
        notes.print(f"{title or 'table'}: nothing to show")
        return
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for number, (name, value) in enumerate(rows[0].items()):
        justify = "right" if isinstance(value, int | float) else "left"
        whole = number == 0  # names stay in one piece, to be copied and searched for
        table.add_column(HEADINGS.get(name, name), justify=justify, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    out.print(table)


def print_json(answer: object) -> None:
    """Print an answer as JSON, and nothing else, to stdout; a number that is not finite is null."""
    finite = json.loads(json.dumps(answer), parse_constant=lambda _: None)
    json.dump(finite, sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


class Update(Protocol):
    """Tells how far a piece of work is."""

    def __call__(self, done: float, total: float, text: str = "", /) -> None:
        """Show `done` of `total` and a short text."""
        ...


class _Bars:
    """The bars of all work that is going on; a terminal has one place for them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._going_on = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} % {task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=notes,
        )

    @contextmanager
    def bar(self, title: str) -> Iterator[Update]:
        """Show a bar until the block ends; any thread may."""
        bar = self._progress.add_task(title, total=None, text="")
        self._count(1)
        try:
            yield lambda done, total, text="", /: self._progress.update(
                bar, completed=done, total=total, text=text
            )
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            before, self._going_on = self._going_on, self._going_on + change
            if before == 0:
                self._progress.start()
            elif self._going_on == 0:
                self._progress.stop()
                for task in self._progress.task_ids:
                    self._progress.remove_task(task)


_bars = _Bars()
_shows_progress = [False]


def show_progress() -> None:
    """Let this process show progress on the terminal: the command line does, a worker does not."""
    _shows_progress[0] = True


def shows_progress() -> bool:
    """Tell whether `show_progress` was called."""
    return _shows_progress[0]


@contextmanager
def shown(title: str) -> Iterator[Update]:
    """Show a piece of work on stderr: a bar in a terminal, now and then a line elsewhere."""
    if not shows_progress():
        yield lambda done, total, text="", /: None
    elif notes.is_terminal:
        with _bars.bar(title) as update:
            yield update
    else:

        def line(done: float, total: float, text: str = "", /) -> None:
            notes.print(f"{title}: {100.0 * done / max(total, 1e-9):.0f} % {text}", markup=False)

        yield at_most_every(LINE_EVERY_S, line)


def counted(images: Iterable[T], total: int, update: Update) -> Iterator[T]:
    """Pass images on and tell how many of them are done."""
    for done, image in enumerate(images):
        update(done, total)
        yield image
    update(total, total)


def at_most_every(seconds: float, function: Update) -> Update:
    """Call through at most once in `seconds`, and always when the work is complete."""
    last = [float("-inf")]

    def limited(done: float, total: float, text: str = "", /) -> None:
        now = time.monotonic()
        if now - last[0] >= seconds or done >= total:
            last[0] = now
            function(done, total, text)

    return limited


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
