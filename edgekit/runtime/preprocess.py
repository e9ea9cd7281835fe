"""A `Preprocess` compiled into the shortest chain of OpenCV calls that ends in the input buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.specs import Preprocess, TensorSpec

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}
_FROM_BGR = {"rgb": cv2.COLOR_BGR2RGB, "gray": cv2.COLOR_BGR2GRAY}
_FROM_GRAY = {"rgb": cv2.COLOR_GRAY2RGB, "bgr": cv2.COLOR_GRAY2BGR}
_UINT8 = np.dtype(np.uint8)
_SIGN_BIT = np.uint8(0x80)


class Preprocessor:
    """Writes frames into a model's input buffer.

    Frames are uint8: BGR [h, w, 3], BGRA [h, w, 4] or grey [h, w]. They are resized first (for
    tiles: the upper left part is taken, mirrored to the right and downwards where it ends), then
    change colour order, then go through one 256-entry table a channel that holds scale, mean, std
    and the input's quantization: for an int8 model no float image exists. A table that is
    ``value - 128`` becomes an XOR in place, after a subtraction where bright pixels are one less
    (-1..1 as int8); one that changes nothing is left out. Float arrays of the input's shape (with
    or without batch dimension) are quantized if need be, else untouched; for NCHW inputs they may
    have their channels last, as frames do. Where the input is no image, floats go through scale,
    mean and std too: there they are readings, not prepared pixels.

    Args:
        preprocess: complete, as `Preprocess.for_input` returns it for the model's first input.
        spec: an input. One that is no image of that size takes arrays of its shape, as they are.

    Attributes:
        table: [256, channels or features], or [256, 1] for all: the input's value for each pixel
            value.
    """

    def __init__(self, preprocess: Preprocess, spec: TensorSpec) -> None:
        sides = spec.shape[2:] if preprocess.layout == "nchw" else spec.shape[1:3]
        if preprocess.size not in (None, sides):
            preprocess = Preprocess(layout="as_is")
        self.preprocess = preprocess
        self.spec = spec
        self._interpolation = _INTERPOLATION[preprocess.interpolation]
        self.table = _table(preprocess, spec)
        self._channels_last = (*spec.shape[2:], *spec.shape[1:2])
        self._mean, self._std = (np.array(v) for v in (preprocess.mean, preprocess.std))
        self._scales_floats = preprocess.layout == "as_is" and not preprocess.leaves_values
        self._step = _step(self.table)
        self._lut = np.ascontiguousarray(self.table[None])
        if self._lut.dtype == np.float16:
            self._lut = self._lut.view(np.uint16)  # OpenCV 4 has no tables of float16
        if preprocess.size is not None:
            height, width = preprocess.size
            self._resized: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
            self._resized_gray: NDArray[np.uint8] = np.empty((height, width), np.uint8)
            channels = 1 if preprocess.color == "gray" else 3
            shape = (height, width, channels) if channels == 3 else (height, width)
            self._colored: NDArray[np.uint8] = np.empty(shape, np.uint8)
            self._normalized: NDArray[Any] = np.empty(shape, spec.dtype)
            self._above: NDArray[np.bool_] = np.empty(shape, np.bool_)

    def __call__(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Write `frame` into `out`, an array of the input's shape and dtype.

        Raises:
            DataError: a frame of another dtype or shape than the model takes.
        """
        if not isinstance(frame, np.ndarray):
            raise DataError(f"a frame must be a numpy array; got {type(frame).__name__}")
        if frame.dtype != _UINT8:
            self._take_tensor(frame, out)
        elif self.preprocess.size is None:
            self._scale_elements(frame, out)
        elif self.preprocess.layout == "nhwc":
            image = out[0] if self.preprocess.color != "gray" else out[0, :, :, 0]
            self._finish(self._resize(frame), image)
        else:
            self._finish(self._resize(frame), self._normalized)
            planes = self._normalized if self._normalized.ndim == 3 else self._normalized[..., None]
            out[0] = planes.transpose(2, 0, 1)

    def region(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns that hold a frame of height x width.

        Letterbox: where the frame lies in the model's input. Centre crop: the part of the frame
        that the model sees. Stretch and tile: everything.
        """
        assert self.preprocess.size is not None
        rows, columns = self.preprocess.size
        if self.preprocess.resize == "letterbox":
            return _centred(rows, columns, height, width)
        if self.preprocess.resize == "center_crop":
            return _centred(height, width, rows, columns)
        return slice(None), slice(None)

    def _resize(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame at the model's size, in the frame's own colour order."""
        if frame.ndim == 3 and frame.shape[2] in (1, 4):
            frame = frame[:, :, 0] if frame.shape[2] == 1 else frame[:, :, :3]
        if frame.ndim < 2 or frame.shape[2:] not in ((), (3,)) or 0 in frame.shape:
            raise DataError(
                f"a uint8 frame must be [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]; "
                f"got {list(frame.shape)}"
            )
        height, width = self._resized_gray.shape
        if self.preprocess.resize == "tile":
            frame = frame[:height, :width]
        if frame.shape[:2] == (height, width):
            return frame
        target = self._resized if frame.ndim == 3 else self._resized_gray
        if self.preprocess.resize == "tile":
            below, beside = height - frame.shape[0], width - frame.shape[1]
            cv2.copyMakeBorder(frame, 0, below, 0, beside, cv2.BORDER_REFLECT_101, dst=target)
            return target
        if self.preprocess.resize == "letterbox":
            target[...] = self.preprocess.pad
            rows, columns = self.region(frame.shape[0], frame.shape[1])
            inner = target[rows, columns]
            size = (inner.shape[1], inner.shape[0])
            cv2.resize(frame, size, dst=inner, interpolation=self._interpolation)
            return target
        if self.preprocess.resize == "center_crop":
            frame = frame[self.region(frame.shape[0], frame.shape[1])]
        cv2.resize(frame, (width, height), dst=target, interpolation=self._interpolation)
        return target

    def _finish(self, image: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Colour order and table, from `image` into `out` ([h, w, 3] or [h, w])."""
        codes = _FROM_BGR if image.ndim == 3 else _FROM_GRAY
        conversion = codes.get(self.preprocess.color)
        if self._step is not None:
            pixels = out.view(np.uint8)
            if conversion is None:
                pixels[...] = image
            else:
                cv2.cvtColor(image, conversion, dst=pixels)
            if self._step < 256:
                np.greater_equal(pixels, self._step, out=self._above)
                np.subtract(pixels, self._above.view(np.uint8), out=pixels)
            if out.dtype != _UINT8:
                np.bitwise_xor(pixels, _SIGN_BIT, out=pixels)
            return
        if conversion is not None:
            cv2.cvtColor(image, conversion, dst=self._colored)
            image = self._colored
        table = self._lut if image.ndim == 3 else self._lut[..., 0]
        cv2.LUT(image, table, dst=out.view(table.dtype))

    def _scale_elements(self, values: NDArray[np.uint8], out: NDArray[Any]) -> None:
        shaped = self._shaped(values)
        out[...] = self.table[shaped, np.arange(shaped.shape[-1]) if self.table.shape[1] > 1 else 0]

    def _take_tensor(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        integers = values.dtype.kind in "iu" and out.dtype.kind in "iu" and self.spec.scale is None
        if values.dtype.kind != "f" and values.dtype != out.dtype and not integers:
            raise DataError(
                f"a frame must be uint8 pixels or a float array; got {values.dtype} "
                f"{list(values.shape)}"
            )
        shaped = self._shaped(values)
        if integers and not np.array_equal(shaped, shaped.astype(out.dtype)):
            raise DataError(
                f"the model's input {self.spec.name!r} is {out.dtype}; got larger values"
            )
        if self.spec.scale is not None and np.isnan(shaped).any():
            raise DataError(f"the model's input {self.spec.name!r} is {out.dtype}; got NaN for it")
        if values.dtype.kind != "f":
            out[...] = shaped
        elif self._scales_floats:
            out[...] = self.spec.quantize((shaped * self.preprocess.scale - self._mean) / self._std)
        else:
            out[...] = self.spec.quantize(shaped)

    def _shaped(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.preprocess.layout == "nchw" and values.shape[-3:] == self._channels_last:
            values = np.moveaxis(values, -1, -3)  # as the model was trained
        # Axes of size 1 say nothing: [49, 10, 1] is what an input [49, 10] takes.
        if [n for n in values.shape if n != 1] != [n for n in self.spec.shape if n != 1]:
            raise DataError(
                f"the model's input {self.spec.name!r} takes {list(self.spec.shape[1:])}; "
                f"got an array {list(values.shape)}"
            )
        return values.reshape(self.spec.shape)


def preprocessors(preprocess: Preprocess, inputs: Sequence[TensorSpec]) -> list[Preprocessor]:
    """Return a model's preprocessors, one an input.

    All pictures of the first one's size are preprocessed, and of numbers those of the first input:
    nothing says that a further one has the same features.

    Args:
        preprocess: complete, as `Preprocess.for_input` returns it for the first input.
        inputs: of the model.
    """
    further = preprocess if preprocess.size is not None else Preprocess(layout="as_is")
    return [Preprocessor(further if i else preprocess, spec) for i, spec in enumerate(inputs)]


def readings_of(preprocess: Preprocess, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return what is preprocessed to `values`, real model inputs [..., features] that are no image.

    >>> readings_of(Preprocess(mean=(3.0,), std=(2.0,), layout="as_is"), np.zeros(1)).tolist()
    [3.0]
    """
    if preprocess.layout != "as_is" or preprocess.leaves_values or not preprocess.scale:
        return np.asarray(values, np.float32)
    scaled = values * np.array(preprocess.std) + np.array(preprocess.mean)
    return np.asarray(scaled / preprocess.scale, np.float32)


def _table(preprocess: Preprocess, spec: TensorSpec) -> NDArray[Any]:
    """Return the model's input value for each pixel value: [256, channels], or [256, 1] for all."""
    channels = 1 if preprocess.color == "gray" else 3
    if preprocess.size is None:
        channels = max(len(preprocess.mean), len(preprocess.std))
    pixels = np.arange(256, dtype=np.float64)[:, None]
    mean, std = (np.broadcast_to(v, channels) for v in (preprocess.mean, preprocess.std))
    table = spec.quantize((pixels * preprocess.scale - mean) / std)
    # OpenCV is 1.6 times faster with one table than with three that are equal.
    return table[:, :1] if (table == table[:, :1]).all() else table


def _step(table: NDArray[Any]) -> int | None:
    """Return the pixel value from which an 8-bit table is one below the pixel, sign bit aside.

    256: nowhere; None: the table is not of this kind.
    """
    if table.shape[1] > 1 or table.dtype not in (np.uint8, np.int8):
        return None
    values = table[:, 0].view(np.uint8) ^ np.uint8(0x80 if table.dtype == np.int8 else 0)
    pixels = np.arange(256)
    step = int((values == pixels).sum())
    return step if step and (values == pixels - (pixels >= step)).all() else None


def _centred(height: int, width: int, ratio_height: int, ratio_width: int) -> tuple[slice, slice]:
    """Return the largest centred part of height x width that has the given aspect ratio."""
    scale = min(height / ratio_height, width / ratio_width)
    rows = max(1, min(height, round(ratio_height * scale)))
    columns = max(1, min(width, round(ratio_width * scale)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)
