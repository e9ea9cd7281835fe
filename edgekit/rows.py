"""Text with one step a line: CSV, or JSON arrays of numbers. Read line by line, never ahead.

A blank line ends a sequence, lines that begin with ``#`` are comments, and the first line may be a
header.
"""

from __future__ import annotations

import csv
import math
import select
import sys
from array import array
from collections.abc import Iterator, Sequence
from io import FileIO
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError

STANDARD_INPUT = "-"
LABEL = "label"
"""Name of the column that holds labels where no other is named."""
LAST = "last"
"""Stands for the last column in the place of a name."""

_LONGEST_BYTES = 16 << 20
_NAMES_SHOWN = 6
_CHUNK_BYTES = 1 << 16
_STEP_S = 0.1


class Row(msgspec.Struct, frozen=True, gc=False):
    """One step.

    Attributes:
        numbers: its features.
        label: text of the label's column, or None where the file has none.
        starts_sequence: it does not continue the step before.
    """

    numbers: list[float]
    label: str | None
    starts_sequence: bool


class RowReader:
    """Reads steps from a file or from standard input, which it leaves open.

    Args:
        source: ``FILE.csv`` or ``-``, either with ``::NAME`` for the column of labels: a name of
            the header, or ``last``. Without it a column named ``label`` is that.

    Attributes:
        name: of the file, for people.
        header: names of the columns, empty if there is no header line; known after the first row.

    Raises:
        DataError: no such file, or one that cannot be read.
    """

    def __init__(self, source: str) -> None:
        path, _, self._label_name = source.partition("::")
        self.name = "standard input" if path == STANDARD_INPUT else path
        self.header: tuple[str, ...] = ()
        self._lines = _open(path)
        self._is_closed = False
        self._number = 0  # of the line
        self._delimiter = ","
        self._width: int | None = None
        self._label_at: int | None = None
        self._starts_sequence = True

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        while not self._is_closed:
            line = self._next_line()
            if not line.strip():
                self._starts_sequence = True
            elif not line.startswith("#"):
                cells = self._cells(line)
                if cells is not None:
                    row = self._row(cells)
                    self._starts_sequence = False
                    return row
        raise StopIteration

    def __enter__(self) -> RowReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def description(self) -> str:
        """The file's name, and its header, if there is one."""
        names = ", ".join(self.header[:_NAMES_SHOWN])
        more = ", …" if len(self.header) > _NAMES_SHOWN else ""
        return f"{self.name} (header: {names}{more})" if self.header else self.name

    def close(self) -> None:
        """Close the file; after that there are no more rows."""
        self._is_closed = True
        self._lines.close()

    def _next_line(self) -> str:
        """Return the next line without its end; `StopIteration` where there is none."""
        try:
            content = self._lines.readline(_LONGEST_BYTES + 1)
        except OSError as error:
            raise DataError(f"cannot read {self.name}: {error.strerror}") from error
        if not content:
            raise StopIteration
        self._number += 1
        if len(content) > _LONGEST_BYTES:
            raise self._malformed("is longer than 16 MiB; expected one step of numbers a line")
        try:
            return content.decode("utf-8-sig" if self._number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self._malformed("is not UTF-8 text; expected numbers, as CSV") from error

    def _cells(self, line: str) -> Sequence[str | float] | None:
        """Return the cells of a line, or None if it is the header."""
        if line.startswith("["):
            try:
                return msgspec.json.decode(line, type=list[int | float])
            except msgspec.MsgspecError as error:
                raise self._malformed(f"is no JSON array of numbers: {error}") from error
        is_first = self._width is None and not self.header
        if is_first:
            self._delimiter = next((sign for sign in "\t;" if sign in line), ",")
        try:
            cells = next(csv.reader([line], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise self._malformed(f"is no CSV: {error}") from error
        cells = [cell.strip() for cell in cells]
        # Columns may be named 0, 1, 2, label.
        is_named = self._label_name in cells or LABEL in cells
        if is_first and (is_named or not any(map(_is_number, cells))):
            self.header = tuple(cells)
            return None
        return cells

    def _row(self, cells: Sequence[str | float]) -> Row:
        if self._width is None:
            self._width = len(self.header or cells)
            self._label_at = self._column_of_labels()
        if len(cells) != self._width:
            raise self._malformed(
                f"has {len(cells)} columns; the lines before it have {self._width}"
            )
        label = None
        if self._label_at is not None:
            label = str(cells[self._label_at])
            if not label:
                raise self._malformed("has no label; expected a class or a number in each line")
            cells = [*cells[: self._label_at], *cells[self._label_at + 1 :]]
        if not cells:
            raise self._malformed("has no numbers; expected the features of one step")
        return Row([self._number_of(cell) for cell in cells], label, self._starts_sequence)

    def _column_of_labels(self) -> int | None:
        if self._label_name in self.header:
            return self.header.index(self._label_name)
        if self._label_name == LAST:
            return (self._width or 0) - 1
        if self._label_name:
            columns = ", ".join(self.header[:20]) or "no header line"
            raise DataError(
                f"{self.name} has no column {self._label_name!r} for labels; it has {columns}: "
                f"write ::NAME for one of them, or ::{LAST}"
            )
        return self.header.index(LABEL) if LABEL in self.header else None

    def _number_of(self, cell: str | float) -> float:
        try:
            number = float(cell)
        except (ValueError, OverflowError):
            raise self._malformed(f"holds {str(cell)[:40]!r}, which is no number") from None
        # float32 ends at 3.4e38: what is beyond would become infinite there.
        if not math.isfinite(number) or abs(number) > 3.4e38:
            raise self._malformed(f"holds {cell}; expected finite numbers: clean the data first")
        return number

    def _malformed(self, what: str) -> DataError:
        return DataError(f"{self.name}, line {self._number} {what}")


class Table(msgspec.Struct, frozen=True):
    """All steps of a text.

    Attributes:
        name: of the file, for people.
        x: float32 [steps, features].
        y: class indices int64, or float32 targets [steps]; None: it has no column of labels.
        classes: names, sorted, where the labels are words.
        starts: indices of the steps that begin a sequence, but the first.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[Any] | None
    classes: tuple[str, ...]
    starts: tuple[int, ...]


def read_table(source: str) -> Table:
    """Read all of a text; `source` as `RowReader` takes it.

    Raises:
        DataError: missing, empty, or with a line that cannot be read.
    """
    numbers, labels, starts = array("f"), [], []
    count = 0
    with RowReader(source) as reader:
        for count, row in enumerate(reader, 1):
            numbers.extend(row.numbers)
            labels.append(row.label)
            if row.starts_sequence and count > 1:
                starts.append(count - 1)
    if not count:
        raise DataError(f"{reader.name} has no steps; expected lines of numbers, one a step")
    x = np.frombuffer(numbers, np.float32).reshape(count, -1)
    names = [label for label in labels if label is not None]
    y, classes = _as_labels(names) if names else (None, ())
    return Table(reader.name, x, y, classes, tuple(starts))


def _as_labels(labels: Sequence[str]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return labels as class indices, as targets, or as indices of sorted names with those."""
    for kind in (np.int64, np.float32):
        try:
            return np.array(labels).astype(kind), ()
        except (ValueError, OverflowError):
            continue
    classes, indices = np.unique(np.array(labels), return_inverse=True)
    return indices.astype(np.int64), tuple(classes.tolist())


class _Lines:
    """Lines of a file, pipe or terminal, which is waited for in short steps.

    A signal that comes just before a read would not be heard until the read returns, which on a
    pipe that fell silent is never; between two steps it is.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._content = bytearray()

    def readline(self, limit: int) -> bytes:
        """Return the next line with its end, at most about `limit` bytes; empty at the end."""
        searched = 0
        while (end := self._content.find(b"\n", searched)) < 0 and len(self._content) < limit:
            searched = len(self._content)
            while not select.select([self._file], [], [], _STEP_S)[0]:
                continue
            chunk = self._file.read(_CHUNK_BYTES)
            if not chunk:
                break
            self._content += chunk
        size = end + 1 if end >= 0 else len(self._content)
        line = bytes(self._content[:size])
        del self._content[:size]
        return line

    def close(self) -> None:
        """Close the file, unless it is standard input, and forget what was read ahead."""
        self._content.clear()
        self._file.close()


def _open(path: str) -> _Lines:
    if path == STANDARD_INPUT and sys.stdin is None:
        raise DataError(
            "standard input cannot be read: it is closed, or this work has a process of its own, "
            "as conversions have; write the steps to FILE.csv"
        )
    try:
        if path == STANDARD_INPUT:
            return _Lines(FileIO(sys.stdin.fileno(), closefd=False))
        return _Lines(FileIO(path))
    except (OSError, ValueError) as error:
        is_away = isinstance(error, FileNotFoundError)
        what = "no such file" if is_away else getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {what}") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
