"""RTSP streams: `rtsp://…`, over TCP, or over UDP with `#transport=udp`."""

from __future__ import annotations

from edgekit.runtime.camera import Timeouts
from edgekit.runtime.camera._opencv import NetworkCamera
from edgekit.runtime.camera._options import one_of, read_options


class Camera(NetworkCamera):
    """An RTSP camera through FFMPEG."""

    def __init__(self, uri: str, timeouts: Timeouts) -> None:
        address, options = read_options(uri, "#", {"transport": one_of("tcp", "udp")})
        super().__init__(address, timeouts, f"rtsp_transport;{options.get('transport', 'tcp')}")
