"""Frames from sources through a model: `edgekit.stream`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, cast

import msgspec
from numpy.typing import NDArray

from edgekit.errors import DataError, UsageError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.clock import Clock
from edgekit.runtime.events import Event, FrameDropped, OnEvent
from edgekit.runtime.inlets import Inlet, Inlets, named
from edgekit.runtime.model import Model
from edgekit.runtime.opening import Sources, open_inlets
from edgekit.runtime.options import Late, Region, StreamOptions
from edgekit.runtime.reader import Frame


class Result(msgspec.Struct, frozen=True):
    """One frame's result.

    Attributes:
        frame_id: number of the frame since its source began; dropped frames have numbers too.
        captured_ns: when it was captured, `time.monotonic_ns`.
        age_ms: time from capture to this result.
        value: the model's decoded prediction, or what the callable returned.
        frame: the picture, uint8 BGR [h, w, 3]; the whole one, also with a region of interest. Of a
            source of numbers what the model got, before scaling: a window [steps, features] or a
            step [features].
        stages_ns: time spent on it, by stage: capture, preprocess, infer, postprocess.
        source: which source it is from, without passwords.
        late: older than the age budget.
        roi: the region that `value` is of: left, top, width, height; None: all of the frame.
    """

    frame_id: int
    captured_ns: int
    age_ms: float
    value: Any
    frame: NDArray[Any]
    stages_ns: dict[str, int]
    source: str = ""
    late: bool = False
    roi: Region | None = None


def stream(
    source: Sources,
    model: Model | Callable[[Any], Any],
    *,
    on_event: OnEvent | None = None,
    policy: str | None = None,
    max_frames: int | None = None,
    timeouts: Timeouts | None = None,
    every_nth: int = 1,
    max_rate_hz: float | None = None,
    max_age_ms: float | None = None,
    late: Late = "mark",
    roi: Region | None = None,
) -> Generator[Result, None, None]:
    """Run `model` on the frames of `source` and yield the results.

    Closing the generator, or leaving its loop, releases the sources. Several sources share the
    model in turn; results of each are in order, `Result.source` says which.

    Args:
        source: see `open_camera`; or a list of names.
        model: an opened bundle, or any callable that takes a frame.
        on_event: called with each `edgekit.runtime.events.Event`, in this thread.
        policy: ``every`` frame (default for files), the ``latest`` (default for live sources:
            frames that arrive while the model is busy are dropped, and a lost source is opened
            again), or ``bounded:N``: as ``latest``, but N frames wait.
        max_frames: end after so many results.
        timeouts: for sources that can hang.
        every_nth: take one of so many frames.
        max_rate_hz: take at most so many frames a second of each source.
        max_age_ms: age budget of a result.
        late: ``mark`` results that are older, or ``drop`` them.
        roi: left, top, width and height of what the model is to see, in pixels of the frame.

    Raises:
        DataError, SourceError: the source cannot be opened; under ``every`` also: a live source
            was lost.

    >>> for result in edgekit.stream("test://640x480@30", model, max_frames=10):
    ...     print(result.frame_id, result.age_ms, result.value)
    """
    options = StreamOptions(
        policy=policy,
        timeouts=timeouts or Timeouts(),
        every_nth=every_nth,
        max_rate_hz=max_rate_hz,
        max_age_ms=max_age_ms,
        late=late,
        roi=roi,
    )
    check_max_frames(max_frames)
    return results(open_inlets(source, options, model), model, options, on_event, max_frames)


def check_max_frames(max_frames: int | None) -> None:
    """Raise `UsageError` for a number of results that is none."""
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"`max_frames` must be at least 1; got {max_frames}")


def results(
    inlets: Inlets,
    model: Model | Callable[[Any], Any],
    options: StreamOptions,
    on_event: OnEvent | None = None,
    max_frames: int | None = None,
) -> Generator[Result, None, None]:
    """Like `stream`, of sources that are open and that it closes."""
    stream = _results(inlets, model, options, on_event, max_frames)
    # Of a generator that has not begun nothing is run when it is closed: the sources' threads
    # would go on for ever.
    next(stream)
    return cast("Generator[Result, None, None]", stream)


def _results(
    inlets: Inlets,
    model: Model | Callable[[Any], Any],
    options: StreamOptions,
    on_event: OnEvent | None,
    max_frames: int | None,
) -> Generator[Result | None, None, None]:
    """Yield None once it is ready, then the results."""
    states = model.states if isinstance(model, Model) else None
    if states is not None:
        states.clear()

    def tell(event: Event) -> None:
        if states is not None:
            states.on_event(event)
        if on_event is not None:
            on_event(event)

    work = _Work(model, options, inlets.clock)
    done = 0
    try:
        yield None
        while max_frames is None or done < max_frames:
            found = inlets.next()
            if found is None:
                return
            number, item = found
            inlet = inlets.inlets[number]
            if isinstance(item, Frame):
                outcome = work(inlet, item)
                if isinstance(outcome, Result):
                    inlet.ledger.deliver(outcome.frame_id)
                    yield outcome
                    done += 1
                else:
                    tell(named(outcome, inlet.name))
            else:
                tell(item)
    finally:
        for event in inlets.close():
            tell(event)
        if states is not None:
            states.clear()


class _Work:
    """A frame's way through the model, within its region of interest and its age budget."""

    def __init__(
        self, model: Model | Callable[[Any], Any], options: StreamOptions, clock: Clock
    ) -> None:
        self._model = model
        self._options = options
        self._clock = clock
        self._fitted: set[str] = set()

    def __call__(self, inlet: Inlet, frame: Frame) -> Result | FrameDropped:
        if self._is_late(frame) and self._options.late == "drop":
            return inlet.ledger.drop(frame.frame_id, "late", "before the model saw it")
        image = frame.image if self._options.roi is None else self._region(inlet.name, frame)
        if image is None:
            return inlet.ledger.drop(frame.frame_id, "outside_roi", self._misfit(frame))
        if isinstance(self._model, Model) and self._model.states is not None:
            self._model.states.select(inlet.name)
        value, stages_ns = self._infer(image)
        late = self._is_late(frame)
        if late and self._options.late == "drop":
            return inlet.ledger.drop(frame.frame_id, "late")
        return Result(
            frame.frame_id,
            frame.captured_ns,
            self._age_ms(frame),
            value,
            frame.image,
            {"capture": frame.capture_ns, **stages_ns},
            inlet.name,
            late,
            self._options.roi,
        )

    def _age_ms(self, frame: Frame) -> float:
        return (self._clock.now_ns() - frame.captured_ns) / 1e6

    def _is_late(self, frame: Frame) -> bool:
        budget_ms = self._options.max_age_ms
        return budget_ms is not None and self._age_ms(frame) > budget_ms

    def _region(self, source: str, frame: Frame) -> NDArray[Any] | None:
        """Return the region's pixels, a view; None where a later frame is too small for it."""
        assert self._options.roi is not None
        left, top, width, height = self._options.roi
        region: NDArray[Any] = frame.image[top : top + height, left : left + width]
        if region.shape[:2] == (height, width):
            self._fitted.add(source)
            return region
        if source not in self._fitted:  # wrong use; afterwards it is a camera that changed
            raise DataError(self._misfit(frame))
        return None

    def _misfit(self, frame: Frame) -> str:
        region = ",".join(map(str, self._options.roi or ()))
        size = "x".join(map(str, frame.image.shape[1::-1]))
        return f"`roi` {region} (X,Y,WIDTH,HEIGHT) does not lie within the frames, which are {size}"

    def _infer(self, image: Any) -> tuple[Any, dict[str, int]]:
        clock, model = self._clock.now_ns, self._model
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
