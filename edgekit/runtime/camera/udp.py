"""MPEG-TS over UDP streams: `udp://…`, with the options of `tcp://`."""

from edgekit.runtime.camera.tcp import Camera

__all__ = ["Camera"]
