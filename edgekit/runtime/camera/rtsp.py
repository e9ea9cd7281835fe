"""RTSP streams: `rtsp://…`."""

from edgekit.runtime.camera._opencv import NetworkCamera as Camera

__all__ = ["Camera"]
