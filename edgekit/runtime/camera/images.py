"""Images: one file, a folder, or a quoted glob; `images://folder#rotate=90`."""

from __future__ import annotations

import glob
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.data import IMAGE_SUFFIXES, list_images, read_image
from edgekit.errors import DataError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._options import read_options


class Camera:
    """Every image, sorted by name."""

    live = False
    may_be_read_ahead = True
    rate_hz: float | None = None

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        pattern = uri
        if uri.startswith("images://"):
            pattern, _ = read_options(uri.removeprefix("images://"), "#", {})
        path = Path(pattern)
        if path.is_dir():
            files = list_images(path)
        elif path.is_file() or not glob.has_magic(pattern):
            files = [path]
        else:
            found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
            files = sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{pattern} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        if len(files) == 1 and not files[0].is_file():
            raise DataError(f"no such image: {files[0]}")
        self.description = pattern
        self._files = files
        self._next = 0

    def grab(self) -> int | None:
        if self._next == len(self._files):
            return None
        self._next += 1
        return time.monotonic_ns()

    def retrieve(self) -> NDArray[np.uint8]:
        return read_image(self._files[self._next - 1])

    def close(self) -> None:
        self._files = []
        self._next = 0
