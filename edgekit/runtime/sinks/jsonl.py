"""JSON Lines: one object a result, `docs/json.md`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgekit.atomic import output_errors
from edgekit.errors import OutputError
from edgekit.runtime.postprocess import to_json
from edgekit.runtime.stream import Result


class Sink:
    """Writes each line at once, so that a killed process leaves whole lines, but for the last.

    The system itself may stop in a write that it was killed in, so that one line may be cut.

    An existing file keeps its lines until the first new one: a run that gives none loses none.
    """

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        self._path = uri.removeprefix("jsonl://")
        with output_errors(self._path):
            if self._path == "-":
                self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
            else:
                self._file = Path(self._path).open("ab", buffering=0)  # noqa: SIM115
        self._is_new = self._path == "-"

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
            written = self._file.write(line)
            if written != len(line):
                self._cut(written)

    def _cut(self, written: int) -> None:
        """Take back a line that the disk took only in part."""
        if self._path != "-":
            self._file.truncate(self._file.tell() - written)
        raise OutputError(
            f"cannot write {self._path}: the disk is full; free space or choose another place"
        )

    def close(self) -> None:
        self._file.close()
