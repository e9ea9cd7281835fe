"""Frames from a source through a model: `edgekit.stream`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

import msgspec
from numpy.typing import NDArray

from edgekit.errors import UsageError, expect_one_of
from edgekit.runtime.camera import Camera, Source, Timeouts, open_camera
from edgekit.runtime.events import FrameDropped, OnEvent
from edgekit.runtime.feed import POLICIES, EveryFrame, Feed, Frame, LatestFrame
from edgekit.runtime.model import Model
from edgekit.runtime.windows import camera_for


class Result(msgspec.Struct, frozen=True):
    """One frame's result.

    Attributes:
        frame_id: number of the frame since the stream began; dropped frames have numbers too.
        captured_ns: when it was captured, `time.monotonic_ns`.
        age_ms: time from capture to this result.
        value: the model's decoded prediction, or what the callable returned.
        frame: the picture, uint8 BGR [h, w, 3]; of a source of numbers what the model got, before
            scaling: a window [steps, features] or a step [features].
        stages_ns: time spent on it, by stage: capture, preprocess, infer, postprocess.
    """

    frame_id: int
    captured_ns: int
    age_ms: float
    value: Any
    frame: NDArray[Any]
    stages_ns: dict[str, int]


def stream(
    source: Source,
    model: Model | Callable[[Any], Any],
    *,
    on_event: OnEvent | None = None,
    policy: str | None = None,
    max_frames: int | None = None,
    timeouts: Timeouts | None = None,
) -> Generator[Result, None, None]:
    """Run `model` on the frames of `source` and yield the results.

    Closing the generator, or leaving its loop, releases the source.

    Args:
        source: see `open_camera`.
        model: an opened bundle, or any callable that takes a frame.
        on_event: called with each `edgekit.runtime.events.Event`, in this thread.
        policy: ``every`` frame (default for files) or the ``latest`` (default for live sources:
            frames that arrive while the model is busy are dropped, and a lost source is opened
            again).
        max_frames: end after so many results.
        timeouts: for sources that can hang.

    Raises:
        DataError, SourceError: the source cannot be opened; under ``every`` also: a live source
            was lost.

    >>> for result in edgekit.stream("test://640x480@30", model, max_frames=10):
    ...     print(result.frame_id, result.age_ms, result.value)
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"`max_frames` must be at least 1; got {max_frames}")
    if policy is not None:
        expect_one_of("policy", policy, POLICIES)
    camera = open_camera(source, timeouts)
    return stream_camera(camera, model, on_event, policy, max_frames, source, timeouts)


def stream_camera(
    camera: Camera,
    model: Model | Callable[[Any], Any],
    on_event: OnEvent | None,
    policy: str | None,
    max_frames: int | None,
    source: Source,
    timeouts: Timeouts | None,
) -> Generator[Result, None, None]:
    """Like `stream`, on an open camera, which it closes; `source` opens it again if it is lost."""
    limits = timeouts or Timeouts()
    tell = on_event or (lambda event: None)
    camera = camera_for(model, camera)
    feed: Feed
    if (policy or ("latest" if camera.live else "every")) == "every":
        feed = EveryFrame(camera)
    else:
        # The camera's own time-out comes first; this one is for drivers that have none.
        stall_s = limits.read_s + 0.5
        feed = LatestFrame(camera, lambda: camera_for(model, open_camera(source, limits)), stall_s)
    try:
        yield from _results(feed, model, tell, max_frames)
    finally:
        for event in feed.close():
            tell(event)


def _results(
    feed: Feed, model: Model | Callable[[Any], Any], on_event: OnEvent, max_frames: int | None
) -> Generator[Result, None, None]:
    done = 0
    while max_frames is None or done < max_frames:
        frame = feed.next()
        if frame is None:
            return
        if not isinstance(frame, Frame):
            on_event(frame)
            continue
        try:
            value, stages_ns = _work(model, frame.image)
        except BaseException:
            on_event(FrameDropped(frame.frame_id, "interrupted"))
            raise
        age_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6
        yield Result(
            frame.frame_id,
            frame.captured_ns,
            age_ms,
            value,
            frame.image,
            {"capture": frame.capture_ns, **stages_ns},
        )
        done += 1


def _work(model: Model | Callable[[Any], Any], image: Any) -> tuple[Any, dict[str, int]]:
    clock = time.perf_counter_ns
    start = clock()
    if not isinstance(model, Model):
        value = model(image)
        return value, {"infer": clock() - start}
    model.preprocess(image)
    ready = clock()
    outputs = model.infer()
    inferred = clock()
    value = model.postprocess(image, outputs).value
    decoded = clock()
    return value, {
        "preprocess": ready - start,
        "infer": inferred - ready,
        "postprocess": decoded - inferred,
    }
