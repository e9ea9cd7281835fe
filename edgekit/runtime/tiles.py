"""Frames larger than a segmentation's input: run as overlapping tiles, their scores blended.

Tiles stand at multiples of their size less the overlap; the last one of a row or column is moved
back to the frame's edge, so that it sees pixels only. What it sees twice costs nothing more, and
the network's own padding then meets the frame's edge, as it would with the whole frame as input.
The grid stays that of the network where the frame's sides are multiples of what it pools by.

Near its edge a tile's scores lack context. So the outer part of an overlap is not used: the scores
change over linearly in the middle of it, `RAMP` of its width. Tiles then equal the whole frame if
the overlap is 2 / (1 - RAMP) times as long as a score's context reaches to one side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.specs import Preprocess, Task, TensorSpec

RAMP = 0.25
"""Share of an overlap in which two tiles are blended; the rest of it is one of them alone.

Membranes, 512x512 on tiles of 256x256, pixels of another class than with the whole picture, ppm:
at an overlap of 16, 32, 64 pixels 727, 48, 0 without a ramp; 714, 73, 0 with a quarter; 722, 173, 5
with a half; 874, 591, 416 with all of it, because scores without context then count too.
"""

InferTile = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""Takes a part of a frame, at most as large as the model's input; returns the raw output."""


class Tiles:
    """Runs a segmentation tile by tile, batch 1, into one map of scores of the frame's size.

    Memory: that map and one tile. Where tiles stand, and their weights, is kept for frames of the
    size of the last one.

    Args:
        task: what the output means.
        preprocess: complete, with resize ``tile``.
        inputs: of the model.
        outputs: of the model.

    Raises:
        UsageError: a model that cannot be run on tiles.
    """

    def __init__(
        self,
        task: Task,
        preprocess: Preprocess,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        one = len(inputs) == len(outputs) == 1 and len(outputs[0].shape) in (3, 4)
        if task != "segmentation" or not one:
            raise UsageError(
                "`preprocess` resize=tile needs a `task` segmentation with one input and one "
                f"output [1, h, w, classes] or [1, h, w]; this is a {task} of {len(inputs)} and "
                f"{len(outputs)}, the first {list(outputs[0].shape)}: choose another resize"
            )
        assert preprocess.size is not None and preprocess.overlap is not None
        self._size, self._overlap, self._spec = preprocess.size, preprocess.overlap, outputs[0]
        self._channels_first = preprocess.layout == "nchw" and len(self._spec.shape) == 4
        cells = self._spec.shape[2:4] if self._channels_first else self._spec.shape[1:3]
        self._strides = tuple(side // count for side, count in zip(self._size, cells, strict=True))
        for side, count, stride in zip(self._size, cells, self._strides, strict=True):
            if count * stride != side or (side - self._overlap) % stride:
                raise UsageError(
                    f"`preprocess` resize=tile,overlap={self._overlap}: the model makes {count} "
                    f"scores of {side} pixels; tiles that lie {side - self._overlap} pixels apart "
                    "do not meet the same cells: choose another overlap or resize"
                )
        self._frame_size: tuple[int, ...] | None = None
        self._scratch = np.empty(self._as_picture(np.empty(self._spec.shape)).shape, np.float32)

    @classmethod
    def of(
        cls,
        task: Task,
        preprocess: Preprocess,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> Tiles | None:
        """Return the tiles of a model, None with another resize; arguments as the class's."""
        return cls(task, preprocess, inputs, outputs) if preprocess.resize == "tile" else None

    def is_one(self, frame: NDArray[Any]) -> bool:
        """Whether `frame` fits into one tile, or is a float model input."""
        return frame.dtype != np.uint8 or all(
            length <= side for length, side in zip(frame.shape[:2], self._size, strict=True)
        )

    def __call__(self, frame: NDArray[np.uint8], infer: InferTile) -> NDArray[np.float32]:
        """Return the blended scores of `frame`, real values, freshly allocated.

        Args:
            frame: uint8 [height, width] or [height, width, channels].
            infer: the model with its preprocessing.

        Returns:
            The shape of the model's output, but with ceil(height / stride) rows and
            ceil(width / stride) columns, where stride is pixels of the input a score.
        """
        if frame.shape[:2] != self._frame_size:
            self._lay_out(frame.shape[0], frame.shape[1])
        scores = np.zeros(self._blended_shape, np.float32)
        target = self._as_picture(scores)
        for top, first_row, row_weights in self._rows:
            for left, first_column, column_weights in self._columns:
                part = frame[top : top + self._size[0], left : left + self._size[1]]
                real = self._as_picture(self._spec.dequantize(infer(part)))
                np.multiply(real, row_weights, out=self._scratch)
                np.multiply(self._scratch, column_weights, out=self._scratch)
                place = target[first_row:, first_column:][: real.shape[0], : real.shape[1]]
                # The last tiles may reach beyond the frame, by less than a cell.
                place += self._scratch[: place.shape[0], : place.shape[1]]
        return scores

    def _lay_out(self, height: int, width: int) -> None:
        strides = self._strides
        rows, columns = (
            _axis(length, side, self._overlap, stride)
            for length, side, stride in zip((height, width), self._size, strides, strict=True)
        )
        self._rows = [(start, first, weights[:, None, None]) for start, first, weights in rows]
        self._columns = [(start, first, weights[:, None]) for start, first, weights in columns]
        shape = list(self._spec.shape)
        axis = 2 if self._channels_first else 1
        shape[axis : axis + 2] = -(-height // strides[0]), -(-width // strides[1])
        self._blended_shape = tuple(shape)
        self._frame_size = (height, width)

    def _as_picture(self, output: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an output as [rows, columns, channels]."""
        if output.ndim == 3:
            return output[0, :, :, None]
        return np.moveaxis(output[0], 0, -1) if self._channels_first else output[0]


def _axis(
    length: int, side: int, overlap: int, stride: int
) -> list[tuple[int, int, NDArray[np.float32]]]:
    """Return the tiles along one side of a frame: first pixel, first cell, weights of its cells.

    Weights are differences of ramps that rise from 0 to 1, one an overlap, the first tile's being 1
    everywhere: whatever the overlaps are, the weights of a cell sum to 1.

    Args:
        length: of the frame, pixels.
        side: of a tile, pixels.
        overlap: pixels.
        stride: pixels a cell.
    """
    last = -(-max(0, length - side) // stride) * stride
    starts = [*range(0, last, side - overlap), last]
    centres = (np.arange(-(-length // stride) + side // stride) + 0.5) * stride
    ramps = [np.ones(len(centres))]
    for before, start in zip(starts, starts[1:], strict=False):
        middle, width = (before + side + start) / 2, RAMP * (before + side - start)
        ramps.append(np.clip((centres - middle) / max(width, 1e-9) + 0.5, 0, 1))
    ramps.append(np.zeros(len(centres)))
    tiles = []
    for start, ramp, next_ramp in zip(starts, ramps, ramps[1:], strict=False):
        first = start // stride
        weights = (ramp - next_ramp)[first : first + side // stride]
        tiles.append((start, first, weights.astype(np.float32)))
    return tiles
