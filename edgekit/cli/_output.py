"""What the verbs have in common: tables for people, JSON for machines, progress."""

from __future__ import annotations

import json as standard_json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgekit.atomic import write_file
from edgekit.bundle import refuse_inside
from edgekit.cli import printable
from edgekit.errors import OutputError, UsageError
from edgekit.profiling.remote import wire

_LEAST_PAUSE_S = 0.1

Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output."),
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder NAME.edgekit.")]


def check_written(
    written: Mapping[str, str | Path | None], read: Mapping[str, str | Path | None]
) -> None:
    """Raise now, not after the work, if a result would replace what was given, or has no place.

    Args:
        written: option -> the file it names; None and ``-`` are none.
        read: option or argument -> what it names; of ``FILE.npz::X,Y`` the file.

    Raises:
        UsageError: two results have one place, or a result has that of what is read.
        OutputError: a folder that is not there, is a bundle, or stands where the file is to be.
    """
    files = {name: Path(path) for name, path in written.items() if path not in (None, "-")}
    taken = {
        Path(str(path).partition("::")[0]).resolve(): name
        for name, path in read.items()
        if path is not None
    }
    for name, path in files.items():
        other = taken.setdefault(path.resolve(), name)
        if other != name:
            raise UsageError(f"`{name}` and `{other}` are both {path}; choose another place")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: its folder does not exist; make it first")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file")
        refuse_inside(path)


def print_json(result: Any, destination: str | None) -> None:
    """Write `result` as JSON to a file or, for ``-``, to standard output; None: nowhere."""
    if destination is None:
        return
    try:
        text = msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
    except UnicodeEncodeError:  # the name of a file that is not UTF-8: its bytes as escapes
        text = standard_json.dumps(msgspec.to_builtins(result), indent=2).encode() + b"\n"
    if destination == "-":
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    else:
        write_file(refuse_inside(Path(destination)), text)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    json: str | None,
    *,
    numbers: bool = True,
) -> None:
    """Print a table: on standard output, or on standard error where JSON takes the former.

    Columns but the first are set right, as numbers are, unless `numbers` is False.
    """
    console = _console(error=json == "-")
    table = Table(box=None, show_header=any(columns))
    for number, column in enumerate(columns):
        first = number == 0
        table.add_column(
            escape(column),
            justify="left" if first or not numbers else "right",
            no_wrap=first,
            overflow="ellipsis" if first else "fold",  # an address or path that is cut is no use
        )
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console.print(f"[bold]{escape(printable(title))}[/bold]", soft_wrap=True)
    console.print(table)


def note(message: str) -> None:
    """Print one line for people on standard error; what would steer the terminal is escaped."""
    line = printable(" ".join(message.splitlines()))
    _console(error=True).print(escape(line), soft_wrap=True)


def _console(*, error: bool) -> Console:
    console = Console(stderr=error, highlight=False)
    if not console.is_terminal:
        console.width = 120  # a log file has no edge to wrap at
    return console


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show phases with a bar on a terminal, and nothing elsewhere; gives (phase, done, total)."""
    if wire.is_open():
        yield wire.teller(sys.stderr)
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda phase, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)
        shown_s, shown_phase = 0.0, ""

        def show(phase: str, done: int, total: int) -> None:
            nonlocal task, shown_s, shown_phase
            now_s = time.monotonic()
            if phase != shown_phase:
                bars.remove_task(task)  # a new one: an old total cannot be made unknown again
                # Another machine, or a file's name, may have words in it that are markup.
                task = bars.add_task(escape(printable(phase)), total=total or None)
            elif now_s - shown_s < _LEAST_PAUSE_S:
                return  # a frame takes microseconds, an update far more
            shown_s, shown_phase = now_s, phase
            bars.update(task, completed=done)

        yield show
