"""Scores of a segmentation as classes and probabilities at the frame's size."""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Activation, Postprocess, TensorSpec

NOT_SEEN = 255
"""Class number of frame pixels that the model did not see (outside a centre crop or its tile)."""

_Pixel = TypeVar("_Pixel", np.uint8, np.float32)


def activated(values: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Return real `values` of a model's output after `activation`, softmax over the last axis."""
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)
    if activation == "sigmoid":
        # exp overflows for no logit
        return np.asarray(np.exp(-np.logaddexp(np.float32(0), -values)), np.float32)
    return values


class Segmenter:
    """Reads the scores of a segmentation.

    They are [1, h, w, classes], or [1, classes, h, w] where the model's input has its channels
    first too; one channel, or [1, h, w], is the probability of class 1. Blended tiles have as many
    cells as the frame needs, see `edgekit.runtime.tiles`.

    Args:
        postprocess: how they are read.
        spec: the output.
        preprocessor: knows where the frame lies in the model's input.

    Raises:
        UsageError: an output that is no class map, or has more than 255 classes.
    """

    def __init__(
        self, postprocess: Postprocess, spec: TensorSpec, preprocessor: Preprocessor
    ) -> None:
        self._postprocess = postprocess
        self._spec = spec
        self._preprocessor = preprocessor
        channels_first = preprocessor.preprocess.layout == "nchw"
        self._class_axis = 0 if channels_first else -1
        classes = spec.shape[1:][self._class_axis] if len(spec.shape) == 4 else 1
        if len(spec.shape) not in (3, 4) or classes > NOT_SEEN:
            raise UsageError(
                f"`task` segmentation needs an output of at most {NOT_SEEN} classes a pixel, "
                f"[1, h, w, classes] or [1, h, w]; the model's is {list(spec.shape)}"
            )
        cells = spec.shape[2:4] if channels_first and len(spec.shape) == 4 else spec.shape[1:3]
        self._cells: tuple[int, ...] = cells
        # Kept for frames of one size: fresh memory costs more than what is computed in it.
        self._plane = self._best = np.empty((0, 0), np.float32)
        self._numbers = np.empty((2, 0, 0), np.uint8)

    def classes(self, output: NDArray[Any], frame: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class of each pixel of `frame`, uint8 [height, width].

        Of a float model input: of each cell of `output`.
        """
        if frame.dtype != np.uint8 or self._preprocessor.preprocess.size is None:
            return self._decide(self._planes(output))
        if self._postprocess.upsample == "nearest":
            return self._in_frame(self._repeated(self._decide(self._planes(output)), frame), frame)
        return self._in_frame(self._interpolated(self._planes(output), frame), frame)

    def probabilities(self, output: NDArray[Any], frame: NDArray[Any]) -> NDArray[np.float32]:
        """Return the probability of each class at each pixel of `frame`.

        Interpolated scores with the activation applied, float32 [height, width, classes]; one class
        of a one-channel model: that of class 1. 0 where the model did not see the frame. Of a float
        model input: at the output's size.
        """
        planes = self._spec.dequantize(self._planes(output))
        if frame.dtype == np.uint8 and self._preprocessor.preprocess.size is not None:
            resized = [self._to_frame(plane, frame) for plane in np.moveaxis(planes, -1, 0)]
            planes = np.stack(resized, axis=-1)
        planes = activated(planes, self._postprocess.activation)
        return self._in_frame(planes, frame, outside=0)

    def _planes(self, output: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an output as [rows, columns, classes]."""
        picture = output[0]
        return (
            picture[..., None] if picture.ndim == 2 else np.moveaxis(picture, self._class_axis, -1)
        )

    def _threshold(self, dtype: np.dtype[Any]) -> float:
        """Return the value of a one-channel output from which a pixel is of class 1."""
        value = self._postprocess.threshold
        if self._postprocess.activation == "sigmoid":
            with np.errstate(divide="ignore"):  # of 0 and 1 the logits are infinite
                value = float(np.log(np.float64(value) / (1 - np.float64(value))))
        if self._spec.scale is not None and dtype.kind in "iu":
            value = value / self._spec.scale + (self._spec.zero_point or 0)
        return value

    def _decide(self, planes: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class of each cell; quantization and activations keep the order."""
        if planes.shape[2] == 1:
            return np.asarray(planes[..., 0] >= self._threshold(planes.dtype), np.uint8)
        return np.asarray(planes.argmax(axis=2), np.uint8)

    def _interpolated(self, planes: NDArray[Any], frame: NDArray[Any]) -> NDArray[np.uint8]:
        """Return classes of interpolated scores; at the frame's size there is one plane at a time.

        Of many classes, those compete that are the best in some cell: most pictures show a few.
        Integers stay what they are: they interpolate without rounding, the same on each machine.
        """
        count = planes.shape[2]
        if count == 1:
            single = self._to_frame(planes[..., 0], frame, reuse=True)
            return np.asarray(single >= self._threshold(planes.dtype), np.uint8)
        if count == 2:
            more = np.subtract(planes[..., 1], planes[..., 0], dtype=np.float32)
            return np.asarray(self._to_frame(more, frame, reuse=True) > 0, np.uint8)
        found = np.bincount(self._decide(planes).reshape(-1)).nonzero()[0]
        plane = self._to_frame(planes[..., found[0]], frame, reuse=True)
        if self._best.shape != plane.shape:
            self._best = np.empty(plane.shape, np.float32)
            self._numbers = np.empty((2, *plane.shape), np.uint8)
        np.copyto(self._best, plane)
        classes = np.full(plane.shape, found[0], np.uint8)
        number, is_better = self._numbers
        for index in found[1:]:
            plane = self._to_frame(planes[..., index], frame, reuse=True)
            cv2.compare(plane, self._best, cv2.CMP_GT, dst=is_better)
            number.fill(index)
            cv2.copyTo(number, is_better, classes)
            cv2.max(plane, self._best, dst=self._best)
        return classes

    def _to_frame(
        self, plane: NDArray[Any], frame: NDArray[Any], reuse: bool = False
    ) -> NDArray[np.float32]:
        """Return one class's scores [rows, columns] for the pixels that the model saw.

        With `reuse` in memory that the next call uses again, if they are resized.
        """
        preprocess = self._preprocessor.preprocess
        assert preprocess.size is not None
        plane = np.ascontiguousarray(plane, np.float32)
        height, width = frame.shape[:2]
        rows, columns = self._preprocessor.region(height, width)
        if preprocess.resize in ("letterbox", "tile"):
            # To pixels of the model's input first: the frame may begin or end within a cell.
            strides = (n / cells for n, cells in zip(preprocess.size, self._cells, strict=True))
            sides = [round(n * stride) for n, stride in zip(plane.shape, strides, strict=True)]
            plane = self._resized(plane, sides[0], sides[1], reuse and preprocess.resize == "tile")
        if preprocess.resize == "tile":
            return plane[:height, :width]
        if preprocess.resize == "letterbox":
            return self._resized(plane[rows, columns], height, width, reuse)
        start, stop, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        return self._resized(plane, stop - start, right - left, reuse)

    def _resized(
        self, plane: NDArray[np.float32], height: int, width: int, reuse: bool
    ) -> NDArray[np.float32]:
        if plane.shape == (height, width):
            return plane
        if not reuse:
            return np.asarray(cv2.resize(plane, (width, height)), np.float32)  # linear
        if self._plane.shape != (height, width):
            self._plane = np.empty((height, width), np.float32)
        cv2.resize(plane, (width, height), dst=self._plane)
        return self._plane

    def _repeated(self, small: NDArray[np.uint8], frame: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the classes of cells for the pixels that the model saw."""
        preprocess = self._preprocessor.preprocess
        assert preprocess.size is not None
        height, width = frame.shape[:2]
        rows, columns = self._preprocessor.region(height, width)
        scales = [cells / n for n, cells in zip(preprocess.size, self._cells, strict=True)]
        if preprocess.resize == "tile":
            height, width = (
                min(length, round(n / scale))
                for length, n, scale in zip((height, width), small.shape, scales, strict=True)
            )
            rows, columns = slice(0, height), slice(0, width)
        if preprocess.resize in ("letterbox", "tile"):
            # The map may be smaller than the input, and the frame then begin within a cell.
            lines = _cell_numbers(rows, height, scales[0])
            return small.take(lines, 0).take(_cell_numbers(columns, width, scales[1]), 1)
        start, stop, _ = rows.indices(height)
        left, right, _ = columns.indices(width)
        size = (right - left, stop - start)
        return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_NEAREST), np.uint8)

    def _in_frame(
        self, seen: NDArray[_Pixel], frame: NDArray[Any], outside: int = NOT_SEEN
    ) -> NDArray[_Pixel]:
        """Return what was decided for the seen part of a frame at its place in the whole."""
        if frame.dtype != np.uint8 or seen.shape[:2] == frame.shape[:2]:
            return seen
        whole = np.full((*frame.shape[:2], *seen.shape[2:]), outside, seen.dtype)
        place = (slice(seen.shape[0]), slice(seen.shape[1]))  # of the first tile alone
        if self._preprocessor.preprocess.resize == "center_crop":
            place = self._preprocessor.region(frame.shape[0], frame.shape[1])
        whole[place] = seen
        return whole


def _cell_numbers(place: slice, length: int, scale: float) -> NDArray[np.intp]:
    """Return the class map's cell at the centre of each of `length` pixels of the frame.

    Args:
        place: the pixels of the model's input that hold the frame.
        length: pixels of the frame.
        scale: cells of the class map a pixel of the model's input.
    """
    centres = place.start + (np.arange(length) + 0.5) * (place.stop - place.start) / length
    return np.asarray(centres * scale, np.intp)
