"""MPEG-TS over TCP streams: `tcp://…`."""

from __future__ import annotations

from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._opencv import NetworkCamera
from edgekit.runtime.camera._options import read_options


class Camera(NetworkCamera):
    """A transport stream through FFMPEG."""

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        super().__init__(read_options(uri, "#", {})[0], timeouts)
