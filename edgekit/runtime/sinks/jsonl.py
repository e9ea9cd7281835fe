"""JSON Lines: one object a result, `docs/json.md`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from edgekit.atomic import output_errors
from edgekit.errors import OutputError, UsageError
from edgekit.runtime.postprocess import to_json
from edgekit.runtime.sinks import path_of
from edgekit.runtime.stream import Result

_OPTIONS = r"rotate=([1-9][0-9]{0,6})MB(?:&keep=([1-9][0-9]{0,3}))?"
_KEPT = 5


class Sink:
    """Writes each line at once, so that a killed process leaves whole lines, but for the last.

    The system itself may stop in a write that it was killed in, so that one line may be cut.

    An existing file keeps its lines until the first new one: a run that gives none loses none.
    With ``#rotate=100MB&keep=5`` it is continued instead, and when it would grow beyond that size
    it becomes ``FILE.1``, the one before ``FILE.2``, and so on up to ``keep``: what a service needs
    that is started again and again.

    Raises:
        UsageError: options that cannot be read.
        OutputError: a place that cannot be written.
    """

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        self._path = path_of(uri)
        options = uri.removeprefix("jsonl://").removeprefix(self._path).removeprefix("#")
        self._most_bytes: int | None = None
        self._kept = _KEPT
        if options:
            self._most_bytes, self._kept = _rotation(options, self._path)
        with output_errors(self._path):
            if self._path == "-":
                self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
            else:
                self._open()
        self._is_new = self._path == "-" or self._most_bytes is not None
        if self._most_bytes is not None:
            self._end_cut_line()

    def _open(self) -> None:
        self._file = Path(self._path).open("ab", buffering=0)  # noqa: SIM115
        self._size = 0 if self._most_bytes is None else self._file.tell()

    def _end_cut_line(self) -> None:
        """Put what follows a line that a kill cut onto a line of its own."""
        with output_errors(self._path):
            if self._size:
                with Path(self._path).open("rb") as file:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        self._size += self._file.write(b"\n")

    def write(self, result: Result) -> None:
        head = (
            f'{{"frame_id":{result.frame_id},"captured_ns":{result.captured_ns},'
            f'"age_ms":{result.age_ms:.3f},"source":'
        )
        source = to_json(result.source) + (b',"late":true' if result.late else b',"late":false')
        line = head.encode() + source + b',"value":' + to_json(result.value) + b"}\n"
        with output_errors(self._path):
            if not self._is_new:
                self._is_new = True
                if Path(self._path).is_file():
                    self._file.truncate(0)
            if self._most_bytes is not None:
                self._make_room(len(line), self._most_bytes)
            written = self._file.write(line)
            if written != len(line):
                self._cut(written)

    def _make_room(self, byte_count: int, most_bytes: int) -> None:
        """Begin a new file where the line would make this one too large."""
        if self._size and self._size + byte_count > most_bytes:
            self._file.close()
            for number in range(self._kept, 0, -1):
                older = Path(f"{self._path}.{number}")
                newer = Path(f"{self._path}.{number - 1}" if number > 1 else self._path)
                if newer.exists():
                    newer.replace(older)
            self._open()
        self._size += byte_count

    def _cut(self, written: int) -> None:
        """Take back a line that the disk took only in part."""
        if self._path != "-":
            self._file.truncate(self._file.tell() - written)
        raise OutputError(
            f"cannot write {self._path}: the disk is full; free space or choose another place"
        )

    def close(self) -> None:
        self._file.close()


def _rotation(options: str, path: str) -> tuple[int, int]:
    """Return the most bytes of a file, and how many older ones are kept."""
    found = re.fullmatch(_OPTIONS, options)
    is_file = path != "-" and (Path(path).is_file() or not Path(path).exists())
    if found is None or not is_file:
        raise UsageError(
            f"`sink` {path} takes #rotate=100MB or #rotate=100MB&keep=5, and only a file can be "
            f"rotated; got #{options}"
        )
    return int(found[1]) * 10**6, int(found[2] or _KEPT)
