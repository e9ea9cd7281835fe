"""JSON Lines: one object a result, `docs/json.md`."""

from __future__ import annotations

import os
import sys

from edgekit.atomic import output_errors
from edgekit.errors import OutputError
from edgekit.runtime.postprocess import to_json
from edgekit.runtime.stream import Result


class Sink:
    """Writes each line at once and whole, so that a killed process leaves readable lines."""

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        self._path = uri.removeprefix("jsonl://")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with output_errors(self._path):
            if self._path == "-":
                self._file = os.dup(sys.stdout.fileno())
            else:
                self._file = os.open(self._path, flags, 0o666)

    def write(self, result: Result) -> None:
        head = (
            f'{{"frame_id":{result.frame_id},"captured_ns":{result.captured_ns},'
            f'"age_ms":{result.age_ms:.3f},"value":'
        )
        line = head.encode() + to_json(result.value) + b"}\n"
        with output_errors(self._path):
            written = os.write(self._file, line)
            if written != len(line):
                self._cut(written)

    def _cut(self, written: int) -> None:
        """Take back a line that the disk took only in part."""
        if os.path.isfile(self._path):  # noqa: PTH113
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
        raise OutputError(
            f"cannot write {self._path}: the disk is full; free space or choose another place"
        )

    def close(self) -> None:
        os.close(self._file)
