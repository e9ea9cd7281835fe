"""Steps as text, `FILE.csv` or standard input (`-`): one a line, CSV or a JSON array."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from edgekit.rows import RowReader
from edgekit.runtime.camera import Timeouts


class Camera:
    """Each row of a text, float32 [features]; read when it is asked for, so that none is lost.

    A column of labels is left out. A line that cannot be read ends the stream with `DataError`.
    """

    live = False
    rate_hz: float | None = None
    gives_pictures = False

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        self._rows = RowReader(uri.removeprefix("csv://"))
        self.starts_sequence = False

    @property
    def description(self) -> str:
        """Where the rows come from, with the header's names once it was read."""
        return self._rows.description

    def grab(self) -> int | None:
        row = next(self._rows, None)
        if row is None:
            return None
        self.starts_sequence = row.starts_sequence
        self._row = np.array(row.numbers, np.float32)
        return time.monotonic_ns()

    def retrieve(self) -> NDArray[np.float32]:
        return self._row

    def close(self) -> None:
        self._rows.close()
