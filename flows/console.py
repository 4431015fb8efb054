"""The terminal: results on stdout, everything about the work itself on stderr."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 5.0
HEADINGS = {"ssim_gaussian": "ssim gauss.", "seconds_per_mpx": "s/Mpx"}
DIGITS = {
    **dict.fromkeys(("psnr", "psnr_b", "gain", "ours less it"), 2),
    **{"ssim": 4, "ssim_gaussian": 4, "bpp": 3, "MB": 1},
}
"""Behind the point, by column: dB have two."""
PROSE = frozenset({"what", "why", "note", "reason", "value", "as"})
"""Columns of sentences, which may wrap between words; PROSE_WIDTH characters are the least."""
PROSE_WIDTH = 24

T = TypeVar("T")

out = Console(soft_wrap=True, highlight=False)
notes = Console(stderr=True, soft_wrap=True, highlight=False)


def show_table(
    rows: Sequence[Mapping[str, object]], title: str | None = None, *, spare: Sequence[str] = ()
) -> None:
    """Print rows of one shape as a table; numbers to the right.

    No number and no name is broken: where the terminal is too narrow, sentences wrap between words,
    then columns of `spare` are left out, the first one first, and at last each row becomes lines.
    """
    if not rows:
        notes.print(f"{title or 'table'}: nothing to show")
        return
    columns = {name: [_text(name, row[name]) for row in rows] for name in rows[0]}
    left_out = []
    for name in (name for name in spare if name in columns):
        if _least_width(columns) <= out.width:
            break
        left_out.append(HEADINGS.get(name, name))
        del columns[name]
    if _least_width(columns) <= out.width:
        out.print(_table(columns, rows[0], title))
        if left_out:
            notes.print(f"left out, it is too narrow here: {', '.join(left_out)}", markup=False)
    else:
        _print_lines(rows, title)


def show_rows(
    rows: Sequence[Mapping[str, object]],
    title: str | None = None,
    *,
    json: bool,
    spare: Sequence[str] = (),
) -> None:
    """Print rows as one JSON array and nothing else, or as `show_table` does."""
    if json:
        print_json(rows)
    else:
        show_table(rows, title, spare=spare)


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


def _table(
    columns: Mapping[str, Sequence[str]], first: Mapping[str, object], title: str | None
) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name, texts in columns.items():
        justify = "right" if isinstance(first[name], int | float) else "left"
        heading, least = HEADINGS.get(name, name), _least(name, texts)
        table.add_column(heading, justify=justify, no_wrap=name not in PROSE, min_width=least)
    for texts in zip(*columns.values(), strict=True):
        table.add_row(*(Text(text) for text in texts))
    return table


def _print_lines(rows: Sequence[Mapping[str, object]], title: str | None) -> None:
    """Print each row as a heading, its first value, and below it a line a further value.

    Of two values a row is one line.
    """
    if title:
        out.print(f"[italic]{escape(title)}[/]")
    if len(rows[0]) == 2:
        texts = [[_text(name, value) for name, value in row.items()] for row in rows]
        width = max(len(first) for first, _ in texts)
        for first, second in texts:
            out.print(f"[bold]{escape(first):{width}}[/]  {escape(second)}")
        return
    names = {name: HEADINGS.get(name, name) for name in rows[0]}
    width = max(map(len, names.values()))
    for row in rows:
        (_, first), *others = ((heading, _text(n, row[n])) for n, heading in names.items())
        out.print(f"[bold]{escape(first)}[/]")
        for heading, text in others:
            if text:
                out.print(f"  {heading:{width}}  {text}", markup=False)


def _least_width(columns: Mapping[str, Sequence[str]]) -> int:
    """Return how many characters a table of these columns needs, a gap of two between them."""
    return sum(_least(name, texts) + 2 for name, texts in columns.items()) - 2


def _least(name: str, texts: Sequence[str]) -> int:
    """Return the least width of a column: its longest text, of sentences their longest word."""
    cells = (HEADINGS.get(name, name), *texts)
    longest = max(map(len, cells))
    if name not in PROSE:
        return longest
    return max(min(longest, PROSE_WIDTH), *(len(word) for cell in cells for word in cell.split()))


def _text(name: str, value: object) -> str:
    if isinstance(value, float):
        digits = DIGITS.get(name, 4 if abs(value) < 2 else 2)
        return f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.00
    return f"{value:,}" if isinstance(value, int) else str(value)
