"""GStreamer pipelines, opened through GStreamer's own binding for Python (`gi`).

Sources: gstreamer.freedesktop.org/documentation/gstreamer/gstparse.html (the parser) and
…/documentation/app/appsink.html (signals and properties of `appsink`).
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import time
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, EnvironmentLacks, MissingPackage, SourceError, UsageError
from edgekit.runtime.camera import Timeouts, without_secrets

_BGR = "videoconvert ! video/x-raw,format=BGR"
TAIL = f"{_BGR} ! appsink drop=true max-buffers=1 sync=false"
_OLDEST_NS = 60_000_000_000  # beyond it, a time stamp is of another clock
# What brings elements that are often missing; patterns, the first that fits.
_PACKAGES = (
    (r"nv\w+", "nvidia-l4t-gstreamer, which JetPack installs"),
    (r"libcamerasrc", "gstreamer1.0-libcamera"),
    (r"h26[45]parse|avdec\w*|x26[45]enc", "gstreamer1.0-plugins-bad and gstreamer1.0-libav"),
    (r"v4l2src|jpegdec|rtspsrc|rtp\w+|souphttpsrc", "gstreamer1.0-plugins-good"),
    (r"appsink|video(convert|scale|rate|testsrc)|decodebin", "gstreamer1.0-plugins-base"),
)


def gstreamer() -> Any:
    """Return the module `Gst`, initialized.

    Raises:
        MissingPackage: `gi`, or GStreamer's description for it, is not there.
    """
    # GStreamer brings libunwind for all to see. Libraries that are loaded later, as OpenVINO, would
    # take its `_Unwind_…` for those of their C++ exceptions, and crash: the first in line is taken.
    with contextlib.suppress(OSError):  # none where another compiler made everything
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
    try:
        import_module("gi").require_version("Gst", "1.0")
        module = import_module("gi.repository.Gst")
    except (ImportError, ValueError) as error:
        raise MissingPackage(
            f"GStreamer cannot be reached from this Python ({error}); install "
            "python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base with apt, and make the "
            "environment with the system's Python: python3 -m venv --system-site-packages .venv"
        ) from error
    module.init(None)
    return module


def with_sink(pipeline: str) -> str:
    """Return the text of a pipeline that ends in an `appsink`: its own, or one of BGR frames."""
    return pipeline if re.search(r"\bappsink\b", pipeline) else f"{pipeline} ! {TAIL}"


def missing_elements(names: list[str]) -> str:
    """Return the end of a message: which elements are missing, and what brings them."""
    hints = {
        next((p for pattern, p in _PACKAGES if re.fullmatch(pattern, name)), None): None
        for name in names
    }
    known = " and ".join(hint for hint in hints if hint)
    found = f"GStreamer has no element {', '.join(names)} on this machine; "
    return found + (f"install {known}" if known else "gst-inspect-1.0 lists those it has")


class PipelineCamera:
    """The BGR frames of a pipeline's `appsink`.

    Args:
        pipeline: as `gst-launch-1.0` takes it; where it has no `appsink`, one that takes BGR
            frames is put behind it.
        description: for messages, without passwords.
        timeouts: until the first frame and the next one.

    Raises:
        UsageError: a text that is no pipeline.
        EnvironmentLacks: an element is not installed.
        SourceError: no frame within the time-out, or an error of an element.
        DataError: frames that are not BGR.
    """

    inter_coded = True  # perhaps: nobody says what a pipeline decodes

    def __init__(self, pipeline: str, description: str, timeouts: Timeouts) -> None:
        self._gst = gstreamer()
        self.description = description
        self._timeouts = timeouts
        text = with_sink(pipeline)
        self._pipeline = self._parse(text)
        try:
            self._sink = self._find_sink()
            self.live = self._start(may_drop=text == pipeline)
            self._sample: Any = self._pull(timeouts.open_s)
            if self._sample is None:
                raise SourceError(f"{description} ended before its first frame")
            self.rate_hz = self._rate()
        except BaseException:
            self.close()
            raise
        self._is_first = True

    def grab(self) -> int | None:
        if not self._is_first:
            self._sample = self._pull(self._timeouts.read_s)
        self._is_first = False
        if self._sample is not None:
            return self._captured_ns()
        if self.live:
            raise SourceError(f"{self.description} gives no more frames")
        return None

    def retrieve(self) -> NDArray[np.uint8]:
        buffer, caps = self._sample.get_buffer(), self._sample.get_caps().get_structure(0)
        width, height = caps.get_int("width")[1], caps.get_int("height")[1]
        size, pitch = buffer.get_size(), -(-3 * width // 4) * 4  # rows begin at multiples of 4
        if size < pitch * height:
            raise DataError(
                f"a frame of {self.description} has {size} bytes; "
                f"{width}x{height} in BGR has {pitch * height}"
            )
        rows = np.frombuffer(buffer.extract_dup(0, pitch * height), np.uint8)
        return rows.reshape(height, pitch)[:, : 3 * width].reshape(height, width, 3).copy()

    def close(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)

    def _parse(self, text: str) -> Any:
        context = self._gst.ParseContext.new()
        try:
            pipeline = self._gst.parse_launch_full(text, context, self._gst.ParseFlags.FATAL_ERRORS)
        except self._glib_error() as error:
            names = context.get_missing_elements() or []
            missing = [n for n in names if self._gst.ElementFactory.find(n) is None]
            if missing:
                raise EnvironmentLacks(
                    f"cannot open {self.description}: {missing_elements(missing)}"
                ) from error
            # The value of a property may be a password.
            message = re.sub(r' to ".*', " to that value", error.message, flags=re.DOTALL)
            raise UsageError(
                f"`source` {self.description!r} is no pipeline that GStreamer takes: {message}; "
                "try it with gst-launch-1.0"
            ) from error
        if not isinstance(pipeline, self._gst.Bin):
            raise UsageError(
                f"`source` {self.description!r}: one element is no pipeline; "
                "expected SOURCE ! … ! appsink"
            )
        return pipeline

    def _find_sink(self) -> Any:
        sinks = self._pipeline.iterate_sinks()
        while True:
            result, element = sinks.next()
            if result != self._gst.IteratorResult.OK:
                raise UsageError(
                    f"`source` {self.description!r} must end in an appsink: {_BGR} ! appsink"
                )
            if element.get_factory().get_name() == "appsink":
                return element

    def _start(self, may_drop: bool) -> bool:
        """Set the pipeline to play; return whether its source is live.

        Args:
            may_drop: frames of a source that is not live may be dropped, if the pipeline says so.
        """
        states, change = self._gst.State, self._gst.StateChangeReturn
        result = self._pipeline.set_state(states.PAUSED)
        if result == change.ASYNC:
            result, _, _ = self._pipeline.get_state(int(self._timeouts.open_s * 1e9))
        is_live = bool(result == change.NO_PREROLL)
        if not (may_drop or is_live):
            self._sink.set_property("drop", False)  # a file waits for its reader
        if change.FAILURE in (result, self._pipeline.set_state(states.PLAYING)):
            raise SourceError(f"cannot open {self.description}: {self._failure('no reason told')}")
        return is_live

    def _pull(self, timeout_s: float) -> Any:
        """Return the next sample, or None at the end."""
        # In slices: an error of a source far from the sink ends no wait by itself.
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            left_ns = max(0, until_ns - time.monotonic_ns())
            sample = self._sink.emit("try-pull-sample", min(left_ns, 100_000_000))
            if sample is not None:
                self._check_format(sample)
                return sample
            if failure := self._failure(""):
                raise SourceError(f"{self.description} failed: {failure}")
            if self._sink.get_property("eos"):
                return None
            if left_ns == 0:
                raise SourceError(
                    f"{self.description} gave no frame within {timeout_s:g} s; check the camera "
                    "and that it has this size and rate, or raise --open-timeout or --read-timeout"
                )

    def _check_format(self, sample: Any) -> None:
        caps = sample.get_caps().get_structure(0)
        given = caps.get_string("format") or caps.get_name()
        if given != "BGR":
            raise DataError(
                f"{self.description} gives {given}; expected BGR: end the pipeline in "
                f"{_BGR} ! appsink"
            )

    def _failure(self, otherwise: str) -> str:
        """Return what an element has told of an error, without passwords, or `otherwise`."""
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is None:
            return otherwise
        error, _ = message.parse_error()  # the details name addresses, with passwords
        told = re.sub(r"\S+://\S+", lambda uri: without_secrets(uri[0]), error.message)
        return f"{message.src.get_name()}: {told}"

    def _captured_ns(self) -> int:
        """Return when the source stamped the frame, or now where nothing sensible says it."""
        buffer, clock = self._sample.get_buffer(), self._pipeline.get_clock()
        none = self._gst.CLOCK_TIME_NONE
        if not self.live or clock is None or buffer.pts == none:
            return time.monotonic_ns()
        stamp_ns = self._sample.get_segment().to_running_time(self._gst.Format.TIME, buffer.pts)
        base_ns = self._pipeline.get_base_time()
        # The pipeline's clock need not be the system's: ages are counted on its own.
        clock_ns, now_ns = clock.get_time(), time.monotonic_ns()
        age_ns = clock_ns - base_ns - stamp_ns
        return now_ns - age_ns if stamp_ns != none and 0 <= age_ns < _OLDEST_NS else now_ns

    def _rate(self) -> float | None:
        found, count, seconds = self._sample.get_caps().get_structure(0).get_fraction("framerate")
        return count / seconds if found and count > 0 and seconds > 0 else None

    @staticmethod
    def _glib_error() -> Any:
        return import_module("gi.repository.GLib").Error
