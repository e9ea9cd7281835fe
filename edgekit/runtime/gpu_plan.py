"""What the GPU's preprocessing kernel must know of a frame and of a model's input: its plan."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, expect_one_of
from edgekit.runtime.preprocess import Preprocessor

PixelFormat = Literal["bgr", "bgra", "gray", "nv12"]
_PIXEL_BYTES = {"bgr": 3, "bgra": 4, "gray": 1, "nv12": 1}
_MOST_BYTES = 2**31 - 1  # the kernel counts bytes in int
_WEIGHT_ONE = 2048  # 11 bits, as OpenCV's INTER_LINEAR of 8-bit pixels

# The struct Plan of kernels/preprocess.cu, in its order: int32 each.
_HEADER = (
    *("width", "height", "channels"),
    *("row_stride", "column_stride", "channel_stride", "element_bytes"),
    *("is_nv12", "pixel_bytes", "pitch", "chroma_pitch"),
    *("source_0", "source_1", "source_2"),
    *("to_gray", "pad"),
    *("columns", "rows", "table"),
)


class FrameLayout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a uint8 frame lies in memory.

    Attributes:
        pixels: ``bgr`` and ``bgra`` (also BGRx) interleaved, ``gray``, or ``nv12``: a plane of Y,
            and one of half its sides with U and V interleaved (BT.601, limited range).
        height, width: in pixels; even for NV12.
        pitch: bytes from one row to the next.
        chroma_pitch: the same of NV12's second plane; 0 for others.

    Raises:
        UsageError: an unknown format.
        DataError: sides or pitches that cannot be, or a frame of 2 GiB or more.
    """

    pixels: PixelFormat
    height: int
    width: int
    pitch: int
    chroma_pitch: int = 0

    def __post_init__(self) -> None:
        """Refuse what would make the kernel read beside the frame."""
        expect_one_of("pixels", self.pixels, get_args(PixelFormat))
        is_nv12 = self.pixels == "nv12"
        if min(self.height, self.width) < 1 or (is_nv12 and (self.height | self.width) & 1):
            raise DataError(
                f"a {self.pixels} frame must have {'even ' if is_nv12 else ''}sides from "
                f"{2 if is_nv12 else 1} pixels on; got {self.height}x{self.width}"
            )
        row_bytes = self.width * _PIXEL_BYTES[self.pixels]
        least = {"pitch": row_bytes, "chroma_pitch": row_bytes if is_nv12 else 0}
        for name, bound in least.items():
            pitch = getattr(self, name)
            if pitch < bound or pitch * self.height > _MOST_BYTES:
                raise DataError(
                    f"`{name}` of a {self.pixels} frame {self.height}x{self.width} must be from "
                    f"{bound} bytes to {_MOST_BYTES // self.height}; got {pitch}"
                )

    @classmethod
    def of(cls, frame: NDArray[Any]) -> FrameLayout:
        """Return the layout of uint8 BGR [h, w, 3], BGRA [h, w, 4] or grey [h, w] or [h, w, 1].

        Raises:
            DataError: a frame of another shape or dtype, or whose pixels are not side by side.
        """
        layout = packed_layout(frame)
        if not frame[:1].flags.c_contiguous or frame.strides[0] < 0:
            raise DataError(
                "a frame for the GPU must have its pixels side by side, rows from the top; "
                "give numpy.ascontiguousarray(frame)"
            )
        if layout.height == 1:
            return layout
        return msgspec.structs.replace(layout, pitch=frame.strides[0])


def packed_layout(frame: NDArray[Any]) -> FrameLayout:
    """Return the layout of a copy of `frame` that has its rows side by side; see `FrameLayout.of`.

    Raises:
        DataError: a frame of another shape or dtype.
    """
    formats: dict[tuple[int, ...], PixelFormat]
    formats = {(): "gray", (1,): "gray", (3,): "bgr", (4,): "bgra"}
    pixels = formats.get(frame.shape[2:]) if frame.ndim >= 2 else None
    if frame.dtype != np.uint8 or pixels is None or 0 in frame.shape:
        raise DataError(
            "a frame for the GPU must be uint8 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]; "
            f"got {frame.dtype} {list(frame.shape)}"
        )
    height, width = frame.shape[:2]
    return FrameLayout(pixels, height, width, width * _PIXEL_BYTES[pixels])


def make_plan(preprocessor: Preprocessor, frame: FrameLayout) -> bytes:
    """Return what the kernel must know of a frame's layout and a model's input, as its `Plan`.

    Args:
        preprocessor: of the model's input, of the kind that `reason_for_cpu` has nothing against.
        frame: the layout of the frames.
    """
    preprocess = preprocessor.preprocess
    assert preprocess.size is not None
    height, width = preprocess.size
    channels = 1 if preprocess.color == "gray" else 3
    is_nchw = preprocess.layout == "nchw"
    rows, columns = _taps_of(preprocessor, frame)
    table = np.ascontiguousarray(np.broadcast_to(preprocessor.table, (256, channels)).T)
    values = {
        "width": width,
        "height": height,
        "channels": channels,
        "row_stride": width if is_nchw else width * channels,
        "column_stride": 1 if is_nchw else channels,
        "channel_stride": width * height if is_nchw else 1,
        "element_bytes": table.itemsize,
        "is_nv12": frame.pixels == "nv12",
        "pixel_bytes": _PIXEL_BYTES[frame.pixels],
        "pitch": frame.pitch,
        "chroma_pitch": frame.chroma_pitch,
        **{f"source_{i}": 2 - i if preprocess.color == "rgb" else i for i in range(3)},
        "to_gray": preprocess.color == "gray",
        "pad": preprocess.pad,
        "columns": 4 * len(_HEADER),
        "rows": 4 * len(_HEADER) + columns.nbytes,
        "table": 4 * len(_HEADER) + columns.nbytes + rows.nbytes,
    }
    header = np.array([values[name] for name in _HEADER], np.int32)
    return b"".join(part.tobytes() for part in (header, columns, rows, table))


def _taps_of(
    preprocessor: Preprocessor, frame: FrameLayout
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the `Tap` of each output row and of each output column: int32 [n, 4]."""
    preprocess, sides = preprocessor.preprocess, (frame.height, frame.width)
    assert preprocess.size is not None
    is_letterbox = preprocess.resize == "letterbox"
    taps = []
    for axis, part in enumerate(preprocessor.region(*sides)):
        size, side, is_row = preprocess.size[axis], sides[axis], axis == 0
        start, stop, _ = part.indices(size if is_letterbox else side)
        if is_letterbox:
            tap = np.full((size, 4), -1, np.int32)
            tap[start:stop] = _taps(side, stop - start, is_row)
        else:
            tap = _taps(stop - start, size, is_row)
            tap[:, :2] += start
        taps.append(tap)
    return taps[0], taps[1]


def _taps(source: int, target: int, is_row: bool) -> NDArray[np.int32]:
    """Return the two source indices and weights of each of `target` pixels: int32 [target, 4].

    As OpenCV's resize: float32 positions, weights rounded to 11 bits. Beyond the last columns it
    takes the outer one with all the weight; beyond the last rows it keeps both weights, on the same
    row, which rounds differently.
    """
    scale = 1.0 / (target / source)
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int32)
    fraction = position - first.astype(np.float32)
    if not is_row:
        fraction[(first < 0) | (first >= source - 1)] = 0
    one = np.float32(_WEIGHT_ONE)
    return np.stack(
        [
            np.clip(first, 0, source - 1),
            np.clip(first + 1, 0, source - 1),
            np.rint((np.float32(1) - fraction) * one),
            np.rint(fraction * one),
        ],
        axis=1,
    ).astype(np.int32)
