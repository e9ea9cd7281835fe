"""Generated pictures and videos of eight shapes: the same seed gives the same frames.

They are drawn, not stored, so the demo needs no data set, no licence and no network.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.atomic import output_errors
from edgekit.demo.shapes import (
    OUTLINES,
    Frame,
    Paint,
    Pose,
    choose_paint,
    draw_background,
    draw_shape,
    expose,
)
from edgekit.errors import OutputError, UsageError, require

LABELS: tuple[str, ...] = tuple(OUTLINES)
"""The shapes in the order of the model's classes."""

_SHAPE_SECONDS = 1.25
_ASPECTS = (3 / 4, 1.0, 4 / 3, 16 / 9)
_MIN_SIDE = 16


def draw_frame(label_index: int, rng: np.random.Generator, height: int, width: int) -> Frame:
    """Draw one large shape in front of a varied background, as a camera would see it.

    Args:
        label_index: which of `LABELS`.
        rng: source of everything that varies.
        height: of the frame in pixels, 16 or more.
        width: of the frame in pixels, 16 or more.

    Returns:
        uint8 BGR frame [height, width, 3].

    Raises:
        UsageError: no such label, or a side that is too small.

    >>> draw_frame(0, np.random.default_rng(1), 96, 128).shape
    (96, 128, 3)
    """
    if not 0 <= label_index < len(LABELS):
        raise UsageError(f"`label_index` must be 0 to {len(LABELS) - 1}; got {label_index}")
    _check_sides(height, width)
    hue, dark = rng.random(), rng.random() < 0.5
    frame = draw_background(rng, hue, dark, height, width)
    radius = rng.uniform(0.16, 0.44) * min(height, width)
    pose = Pose(
        x=rng.uniform(0.95 * radius, width - 0.95 * radius),
        y=rng.uniform(0.95 * radius, height - 0.95 * radius),
        radius=radius,
        angle=rng.uniform(0, 2 * math.pi),
        stretch=rng.uniform(0.88, 1.14),
    )
    draw_shape(frame, LABELS[label_index], pose, choose_paint(rng, hue, dark))
    return expose(frame, rng)


def make_set(
    count: int, seed: int, size: tuple[int, int] = (96, 96)
) -> tuple[Frame, NDArray[np.int64]]:
    """Draw a labelled set for training, calibration or evaluation.

    The frames are drawn in common aspect ratios and stretched to `size`, as a camera's are.

    Args:
        count: number of frames; every run of eight holds each label once.
        seed: same seed, same set.
        size: (height, width) in pixels.

    Returns:
        uint8 RGB frames [count, height, width, 3] and int64 indices into `LABELS` [count].

    Raises:
        UsageError: a negative count, or a side that is too small.
    """
    cv2 = require("cv2", "cpu")
    if count < 0:
        raise UsageError(f"`count` must be 0 or more; got {count}")
    height, width = size
    _check_sides(height, width)
    rng = np.random.default_rng(seed)
    runs = [rng.permutation(len(LABELS)) for _ in range(-(-count // len(LABELS)))]
    labels = np.array(runs, np.int64).reshape(-1)[:count]
    frames = np.empty((count, height, width, 3), np.uint8)
    for frame, label in zip(frames, labels, strict=True):
        drawn_height = round(height * rng.uniform(1.0, 2.5))
        drawn_width = max(_MIN_SIDE, round(drawn_height * rng.choice(_ASPECTS)))
        drawn = draw_frame(int(label), rng, drawn_height, drawn_width)
        cv2.cvtColor(cv2.resize(drawn, (width, height)), cv2.COLOR_BGR2RGB, dst=frame)
    return frames, labels


def animate(
    seconds: float = 10, size: tuple[int, int] = (640, 480), rate_hz: float = 30, seed: int = 0
) -> Iterator[tuple[int, Frame]]:
    """Yield (index into `LABELS`, uint8 BGR frame) of one shape after another, moving smoothly.

    Args:
        seconds: length of the video.
        size: (width, height) in pixels.
        rate_hz: frames a second.
        seed: same seed, same video.

    Raises:
        UsageError: no whole frame in that time, or a side that is too small.
    """
    width, height = size
    _check_sides(height, width)
    frames = round(seconds * rate_hz) if rate_hz > 0 else 0
    if frames < 1:
        raise UsageError(
            f"`seconds` times `rate_hz` must give a frame or more; got {seconds} and {rate_hz}"
        )
    return _frames(frames, height, width, rate_hz, np.random.default_rng(seed))


def write_video(
    path: Path | str,
    seconds: float = 10,
    size: tuple[int, int] = (640, 480),
    rate_hz: float = 30,
    seed: int = 0,
) -> None:
    """Write what `animate` yields as an MPEG-4 `.mp4`; a file of that name is replaced at the end.

    Args:
        path: ends in ``.mp4``.
        seconds: length of the video.
        size: (width, height) in pixels.
        rate_hz: frames a second.
        seed: same seed, same video.

    Raises:
        UsageError: another suffix, an odd or too small side, or no whole frame in that time.
        OutputError: the place cannot be written, or this OpenCV cannot write MPEG-4.

    >>> write_video("shapes.mp4", seconds=2)
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"`path` must end in .mp4; got {str(path)!r}")
    if size[0] % 2 or size[1] % 2:
        raise UsageError(f"`size` of an MPEG-4 video must be even; got {size[0]}x{size[1]}")
    frames = animate(seconds, size, rate_hz, seed)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial.mp4")
    with output_errors(path):
        try:
            # Opened by Python first: its error says why, OpenCV's only that it failed.
            partial.touch(exist_ok=False)
            _encode(partial, frames, size, rate_hz, shown=path)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _encode(
    partial: Path,
    frames: Iterator[tuple[int, Frame]],
    size: tuple[int, int],
    rate_hz: float,
    shown: Path,
) -> None:
    """Write `frames` to `partial`; errors name the path `shown`."""
    cv2 = require("cv2", "cpu")
    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, size)
    if not writer.isOpened():
        raise OutputError(
            f"cannot write {shown}: this OpenCV {cv2.__version__} opens no mp4v video of "
            f"{size[0]}x{size[1]} at {rate_hz} Hz; install opencv-python-headless, which has FFMPEG"
        )
    count = 0
    try:
        for _, frame in frames:
            writer.write(frame)
            count += 1
    finally:
        writer.release()
    # The writer swallows a full disk; a video that is whole can be opened and counted.
    reader = cv2.VideoCapture(str(partial))
    found = round(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if found != count:
        raise OutputError(
            f"cannot write {shown}: {found} of {count} frames arrived, most likely the disk is "
            "full; free space or choose another place"
        )


def _check_sides(height: int, width: int) -> None:
    if min(height, width) < _MIN_SIDE:
        raise UsageError(
            f"height and width must be {_MIN_SIDE} pixels or more; got {height}x{width}"
        )


def _frames(
    count: int, height: int, width: int, rate_hz: float, rng: np.random.Generator
) -> Iterator[tuple[int, Frame]]:
    """Yield the frames of a video whose arguments were checked."""
    cv2 = require("cv2", "cpu")
    hue = rng.random()
    # Two backgrounds, larger than the frame, pan against each other and fade into one another.
    wide = (round(1.2 * height), round(1.2 * width))
    first, second = (draw_background(rng, (hue + turn) % 1, True, *wide) for turn in (0, 0.18))
    order = rng.permutation(len(LABELS))
    paints: list[Paint] = []
    for index in range(count):
        time_s = index / rate_hz
        change, part = divmod(time_s / _SHAPE_SECONDS, 1.0)
        while change >= len(paints):
            paints.append(choose_paint(rng, hue, dark=True))
        fade = 0.5 - 0.5 * math.cos(0.5 * time_s)
        behind = _pan(first, time_s, height, width)
        beyond = _pan(second, time_s + 9, height, width)
        frame = cv2.addWeighted(behind, 1 - fade, beyond, fade, 0)
        label = int(order[int(change) % len(LABELS)])
        draw_shape(frame, LABELS[label], _pose_at(time_s, part, height, width), paints[-1])
        yield label, frame


def _pan(ground: Frame, time_s: float, height: int, width: int) -> Frame:
    """Return the part [height, width, 3] of a larger `ground` that is seen at a time."""
    cv2 = require("cv2", "cpu")
    x = (ground.shape[1] - width) * (0.5 + 0.48 * math.sin(0.45 * time_s))
    y = (ground.shape[0] - height) * (0.5 + 0.48 * math.cos(0.33 * time_s))
    centre = (x + (width - 1) / 2, y + (height - 1) / 2)
    seen: Frame = cv2.getRectSubPix(ground, (width, height), centre)
    return seen


def _pose_at(time_s: float, part: float, height: int, width: int) -> Pose:
    """Return the pose at a time, `part` 0..1 of the way from one change of shape to the next."""
    # Shapes change where the size is smallest: a dip before, an overshoot that rings out after.
    grow = 1 - 0.5 * math.exp(-9 * part) * math.cos(16 * part)
    shrink = 1 - 0.5 * max(0.0, (part - 0.88) / 0.12) ** 2
    swing = math.exp(-6 * part) * 0.9
    return Pose(
        x=width * (0.5 + 0.17 * math.sin(0.9 * time_s)),
        y=height * (0.5 + 0.09 * math.sin(1.3 * time_s + 1)),
        radius=min(height, width) * (0.31 + 0.035 * math.sin(1.7 * time_s)) * grow * shrink,
        angle=0.35 * math.sin(1.1 * time_s) - swing,
    )
