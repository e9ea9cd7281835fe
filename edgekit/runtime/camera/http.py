"""HTTP (MJPEG or any container) streams: `http://…`."""

from edgekit.runtime.camera._opencv import NetworkCamera as Camera

__all__ = ["Camera"]
