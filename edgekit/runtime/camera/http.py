"""HTTP streams: `http://…`; MJPEG by our own reader, other containers by FFMPEG.

FFMPEG decodes a JPEG picture when it is grabbed, ours when it is retrieved: at 1280x720 a frame
that is dropped costs 0.1 ms of CPU instead of 2.6, one that is kept 4.8 instead of 3.4, so that
ours costs less wherever the model takes fewer than about half of the frames. More important: no
decoding stands between a new picture and the reader, every read has a deadline, a picture is
stamped when its header arrives, and one that was cut off is told (`benchmarks/streams.py`).
"""

from __future__ import annotations

from edgekit.runtime import camera
from edgekit.runtime.camera import Timeouts, without_secrets
from edgekit.runtime.camera._http import Deadline, open_http
from edgekit.runtime.camera._mjpeg import MjpegCamera, is_multipart
from edgekit.runtime.camera._opencv import NetworkCamera
from edgekit.runtime.camera._options import one_of, read_options


def Camera(uri: str, timeouts: Timeouts) -> camera.Camera:  # noqa: N802
    """Open an HTTP stream."""
    address, options = read_options(uri, "#", {"verify": one_of("on", "off")})
    deadline = Deadline(timeouts.open_s)
    answer = open_http(address, deadline, verifies=options.get("verify") != "off")
    if is_multipart(answer):
        return MjpegCamera(answer, without_secrets(address), timeouts, deadline)
    answer.close()  # some cameras serve one reader at a time
    return NetworkCamera(address, timeouts)
