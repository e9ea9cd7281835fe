"""Steps of a sequence -> what a model takes at a time: windows, or one step after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.rows import LAST
from edgekit.runtime.camera import Camera
from edgekit.runtime.model import Model
from edgekit.specs import TensorSpec

_GAP_PERIODS = 2.5  # as live frames have it


class Windows:
    """The last `length` steps of a sequence, every `hop` steps.

    Each step is written twice, `length` apart, so that the last ones always lie side by side: a
    window is a view, and no step is moved for the next one.

    Args:
        length: steps a window.
        hop: steps from the start of a window to that of the next.
        features: numbers a step.

    >>> windows = Windows(length=2, hop=1, features=1)
    >>> [None if w is None else w.ravel().tolist() for w in map(windows.push, ([1], [2], [3]))]
    [None, [1.0, 2.0], [2.0, 3.0]]
    """

    def __init__(self, length: int, hop: int, features: int) -> None:
        self.length, self.hop = length, hop
        self._ring: NDArray[np.float32] = np.empty((2 * length, features), np.float32)
        self.clear()

    def clear(self) -> None:
        """Forget all steps: the next one does not continue them."""
        self._next = 0  # place in the ring
        self._missing = self.length  # steps until the next window is whole

    def push(self, step: Any) -> NDArray[np.float32] | None:
        """Take one step, and return the window that it completes, if it does.

        Args:
            step: numbers [features].

        Returns:
            float32 [length, features], a view that holds until the next `push`; or None.
        """
        self._ring[self._next] = step
        self._ring[self._next + self.length] = step
        self._next = (self._next + 1) % self.length
        self._missing -= 1
        if self._missing:
            return None
        self._missing = self.hop
        return self._ring[self._next : self._next + self.length]


class SequenceCamera:
    """A source of steps as a source of what the model takes, itself a camera.

    Of the source's samples, one of the model's shape is passed on as it is; [features] is a step
    that continues the one before; [steps, features] is a sequence of its own. A window never spans
    two sequences, a silence of a live source, or a step that could not be read.

    Args:
        camera: the source; closed with this.
        spec: the model's first input: [1, steps, features], or [1, features] for one step.
        hop: steps from the start of a window to that of the next.

    Attributes:
        starts_sequence: the grabbed window or step is the first of a sequence.
    """

    def __init__(self, camera: Camera, spec: TensorSpec, hop: int | None) -> None:
        length = spec.shape[1] if len(spec.shape) == 3 else 1
        self._camera = camera
        self._spec = spec
        self._windows = Windows(length, hop or length, spec.shape[-1])
        self._sequence: NDArray[Any] = np.empty((0, spec.shape[-1]), np.float32)
        self._captured_ns: int | None = None
        self._sample: Any = None
        self._failure: DataError | None = None
        self._steps = self._longest = 0  # of this sequence, of all so far
        self._is_fresh = self._is_complete = True  # the next sample starts a sequence anew
        self._gave = False
        self.live = camera.live
        self.rate_hz = camera.rate_hz and camera.rate_hz / self._windows.hop
        self.gives_pictures = getattr(camera, "gives_pictures", True)
        self.starts_sequence = False

    @property
    def description(self) -> str:
        """What the source says of itself."""
        return self._camera.description

    def grab(self) -> int | None:
        """Read steps until a window is whole; its time is that of its last step."""
        while True:
            for taken, step in enumerate(self._sequence, 1):
                window = self._push(step)
                if window is not None:
                    self._sequence = self._sequence[taken:]
                    return self._give(window.copy())
            self._sequence = self._sequence[:0]
            if not self._next_sample():
                return None
            if self._sample is not None or self._failure is not None:
                return self._give(self._sample)

    def retrieve(self) -> Any:
        """Return the window or step, float32, or what the source gave whole."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self._sample

    def close(self) -> None:
        """Release the source."""
        self._camera.close()

    def _give(self, sample: Any) -> int | None:
        self._sample, self._gave = sample, True
        self.starts_sequence, self._is_fresh = self._is_fresh, False
        return self._captured_ns

    def _push(self, step: NDArray[Any]) -> NDArray[np.float32] | None:
        self._steps += 1
        self._longest = max(self._longest, self._steps)
        return self._windows.push(step)

    def _next_sample(self) -> bool:
        """Read the source's next sample: whole, or steps to be pushed; False at its end."""
        before_ns, self._captured_ns = self._captured_ns, self._camera.grab()
        self._sample = None
        if self._captured_ns is None:
            self._check_that_some_were_long_enough()
            return False
        if getattr(self._camera, "starts_sequence", False):
            self._start_sequence()
        elif self.live and before_ns is not None and self._camera.rate_hz:
            silent_s = (self._captured_ns - before_ns) / 1e9
            if silent_s * self._camera.rate_hz > _GAP_PERIODS:
                self._windows.clear()
        try:
            sample = self._camera.retrieve()
        except DataError as error:
            self._windows.clear()
            self._failure = error
            return True
        self._take(sample)
        return True

    def _take(self, sample: Any) -> None:
        shape = getattr(sample, "shape", None)
        features = self._spec.shape[-1]
        is_whole = shape is None or is_same(shape, self._spec.shape)
        steps = None if is_whole else as_steps(sample, features)
        is_sequence = steps is not None and len(steps) != 1
        if self._is_complete or is_sequence:
            self._start_sequence()
        self._is_complete = is_sequence
        if steps is not None:
            self._sequence = steps
        elif is_whole:
            self._windows.clear()
            self._sample = sample  # a tuple of arrays is left to the model as well
        else:
            raise wrong_form(self.description, sample, self._spec)

    def _start_sequence(self) -> None:
        self._windows.clear()
        self._steps = 0
        self._is_fresh = True

    def _check_that_some_were_long_enough(self) -> None:
        if self._longest and not self._gave:
            raise too_short(self.description, self._longest, self._windows.length)


def camera_for(model: Any, camera: Camera) -> Camera:
    """Return `camera`, as a `SequenceCamera` where `model` is a bundle that takes no pictures."""
    if not isinstance(model, Model):
        return camera
    spec, preprocess = model.backend.inputs[0], model.bundle.manifest.preprocess
    if preprocess.layout != "as_is" or len(spec.shape) not in (2, 3):
        return camera
    return SequenceCamera(camera, spec, preprocess.hop)


def as_steps(values: NDArray[Any], features: int) -> NDArray[Any] | None:
    """Return `values` as [steps, features], or None if they are of another form."""
    if features == 1 and values.shape[-1:] != (1,):
        values = values[..., None]
    if values.shape[-1:] != (features,) or sum(side != 1 for side in values.shape[:-1]) > 1:
        return None
    return values.reshape(-1, features)


def is_same(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ in axes of size 1 at most."""
    return [side for side in shape if side != 1] == [side for side in other if side != 1]


def too_short(name: str, longest: int, window: int) -> DataError:
    """Return what to raise where no sequence fills a window."""
    return DataError(
        f"the longest sequence of {name} has {longest} steps; the model takes windows of {window}: "
        "give longer ones"
    )


def wrong_form(name: str, sample: NDArray[Any], spec: TensorSpec) -> DataError:
    """Return what to raise for a sample that is neither a model's input nor steps of it."""
    features = spec.shape[-1]
    advice = ""
    if sample.shape == (features + 1,):
        advice = f"; if a column holds labels, name it: FILE.csv::NAME, or FILE.csv::{LAST}"
    return DataError(
        f"{name} gives {list(sample.shape)}; the model takes {list(spec.shape[1:])}, or steps of "
        f"{features} number{'s' if features > 1 else ''}{advice}"
    )
