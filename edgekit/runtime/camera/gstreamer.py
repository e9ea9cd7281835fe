"""GStreamer pipelines: `gstreamer:SOURCE ! … ! appsink`, as `gst-launch-1.0` takes them.

Opened through `gi`, which tells live sources from files and names missing elements; where that
cannot be imported, through an OpenCV that was built with GStreamer (pip's are not), where every
pipeline counts as live.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import cv2

from edgekit.errors import EnvironmentLacks, MissingPackage, SourceError, UsageError
from edgekit.runtime import camera
from edgekit.runtime.camera import Timeouts, without_secrets
from edgekit.runtime.camera._opencv import CaptureCamera, timeout_settings
from edgekit.runtime.camera._pipeline import (
    PipelineCamera,
    gstreamer,
    missing_elements,
    with_sink,
)

_LONGEST = 4096  # GStreamer's parser takes time that grows with the square


def Camera(uri: str, timeouts: Timeouts) -> camera.Camera:  # noqa: N802
    """Open the pipeline of `gstreamer:PIPELINE`."""
    pipeline = re.sub(r"^gstreamer:(//)?", "", uri, flags=re.IGNORECASE).strip()
    if not 0 < len(pipeline) <= _LONGEST:
        raise UsageError(
            f"`source` gstreamer: has a pipeline of {len(pipeline)} characters, at most "
            f"{_LONGEST}; expected gstreamer:SOURCE ! … ! appsink, like gstreamer:videotestsrc"
        )
    return open_pipeline(pipeline, without_secrets(uri), timeouts)


def open_pipeline(pipeline: str, description: str, timeouts: Timeouts) -> camera.Camera:
    """Open a pipeline that ends in an `appsink`, or is given one for BGR frames.

    Raises:
        MissingPackage: neither `gi` nor an OpenCV with GStreamer is there.
        EnvironmentLacks: an element is not installed.
        UsageError, SourceError, DataError: see `PipelineCamera`.
    """
    try:
        gstreamer()
    except MissingPackage as error:
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise MissingPackage(
                f"cannot open {description}: {error}; or use an OpenCV with GStreamer, such as the "
                f"system's (this one, {cv2.__version__}, has none; see edgekit doctor)"
            ) from error
        return _open_with_opencv(pipeline, description, timeouts)
    return PipelineCamera(pipeline, description, timeouts)


def _open_with_opencv(pipeline: str, description: str, timeouts: Timeouts) -> camera.Camera:
    text = with_sink(pipeline)
    # OpenCV takes time-outs for GStreamer from 4.7 on; before, they keep it from opening.
    has_timeouts = hasattr(cv2, "CAP_PROP_N_THREADS")  # of 4.7 too
    settings = timeout_settings(timeouts) if has_timeouts else []
    capture = cv2.VideoCapture(text, cv2.CAP_GSTREAMER, settings)
    if capture.isOpened():
        return CaptureCamera(capture, description)
    if missing := _not_inspected(text):
        raise EnvironmentLacks(f"cannot open {description}: {missing_elements(missing)}")
    raise SourceError(
        f"cannot open {description}: OpenCV does not say why; try it with gst-launch-1.0, in which "
        "fakesink stands for the appsink"
    )


def _not_inspected(pipeline: str) -> list[str]:
    """Return the elements of a pipeline that `gst-inspect-1.0`, where it is there, knows not."""
    inspect = shutil.which("gst-inspect-1.0")
    if inspect is None:
        return []
    names = re.findall(r"(?:^|!)\s*([a-z][a-z0-9_]+)(?=\s|!|$)", pipeline)
    return [
        name
        for name in dict.fromkeys(names)
        if subprocess.run([inspect, "--exists", name], stdin=subprocess.DEVNULL).returncode
    ]
