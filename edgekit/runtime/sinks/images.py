"""Annotated images: `FOLDER/`, one JPEG a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from edgekit.atomic import output_errors, write_file
from edgekit.errors import OutputError
from edgekit.runtime.overlay import Annotator
from edgekit.runtime.stream import Result


class Sink:
    """Writes `000042.jpg` for frame 42; the folder is made if it is not there.

    Of several sources frame 42 of the first one is `0-000042.jpg`: each numbers its own frames.
    """

    needs_pictures = True

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        self._annotated = Annotator()
        self._prefixes: dict[str, str] = {}
        self._folder = Path(uri.removeprefix("images://"))
        with output_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def begin(self, sources: Sequence[str]) -> None:
        """Take the sources' names."""
        if len(sources) > 1:
            self._prefixes = {name: f"{number}-" for number, name in enumerate(sources)}

    def write(self, result: Result) -> None:
        done, content = cv2.imencode(".jpg", self._annotated(result))
        if not done:
            raise OutputError(f"frame {result.frame_id} cannot be encoded as JPEG")
        name = f"{self._prefixes.get(result.source, '')}{result.frame_id:06}.jpg"
        write_file(self._folder / name, content.tobytes(), synced=False)

    def close(self) -> None:
        """Nothing is left to do."""
