"""The eight shapes of the demo, their colours and what lies behind them, drawn with OpenCV."""

from __future__ import annotations

import colorsys
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import require

Frame = NDArray[np.uint8]
Contours = list[NDArray[np.float64]]
Color = tuple[float, float, float]

# Corners are given to OpenCV in sixteenths of a pixel, so that motion is smooth.
_SHIFT = 4


class Pose(msgspec.Struct, frozen=True):
    """Where a shape lies.

    Attributes:
        x: of the centre, in pixels.
        y: of the centre, in pixels.
        radius: in pixels.
        angle: in radians, clockwise.
        stretch: factor on the width, before the shape is turned.
    """

    x: float
    y: float
    radius: float
    angle: float
    stretch: float = 1.0


class Paint(msgspec.Struct, frozen=True):
    """BGR colours 0..255 of a shape's upper left, its lower right and its edge.

    Attributes:
        light: colour at the upper left.
        shade: colour at the lower right.
        edge: colour of the edge.
        edge_width: in radii; 0: no edge.
    """

    light: Color
    shade: Color
    edge: Color
    edge_width: float


def _around(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points [n, 2] on the unit circle, angles in radians clockwise from the top."""
    return np.stack([np.sin(angles), -np.cos(angles)], 1)


def _regular(corners: int, first: float = 0.0) -> NDArray[np.float64]:
    return _around(first + np.arange(corners) * 2 * math.pi / corners)


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], 1) / 17


def _moon() -> NDArray[np.float64]:
    """A circle as far as two tips at the right, and back between them on a smaller arc."""
    tip_angle, bite_x = 0.55, 0.36
    tip = _around(np.array([tip_angle]))[0]
    reach = math.hypot(tip[0] - bite_x, tip[1])
    bite_angle = math.atan2(tip[0] - bite_x, -tip[1])
    tips = math.pi - tip_angle, 2 * math.pi + tip_angle
    back = 2 * math.pi + bite_angle, math.pi - bite_angle
    outer = _around(np.linspace(*tips, 48, dtype=np.float64))
    inner = reach * _around(np.linspace(*back, 40, dtype=np.float64)[1:-1])
    return 0.97 * np.concatenate([outer, inner + (bite_x, 0)]) + (0.24, 0)


def _cross() -> NDArray[np.float64]:
    arm = np.array([[-0.3, -0.95], [0.3, -0.95], [0.3, -0.3]])
    quarter = np.array([[0, 1], [-1, 0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, turns) for turns in range(4)])


OUTLINES: dict[str, Contours] = {
    "circle": [0.9 * _regular(72)],
    "cross": [_cross()],
    "heart": [_heart()],
    "moon": [_moon()],
    "ring": [0.93 * _regular(72), 0.5 * _regular(72)],
    "square": [1.06 * _regular(4, math.pi / 4)],
    "star": [_regular(10) * np.where(np.arange(10) % 2, 0.43, 1.0)[:, None]],
    "triangle": [1.05 * _regular(3) + (0, 0.12)],
}
"""Closed contours [n, 2] of each shape, about within the unit circle; one in another is a hole."""


def draw_shape(frame: Frame, name: str, pose: Pose, paint: Paint) -> None:
    """Draw a shape of `OUTLINES` with a soft shadow into a BGR `frame` [h, w, 3], in place."""
    cv2 = require("cv2", "cpu")
    reach = math.ceil(1.45 * pose.radius)
    left, top = max(0, round(pose.x) - reach), max(0, round(pose.y) - reach)
    part = frame[top : round(pose.y) + reach, left : round(pose.x) + reach]
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    turn = pose.radius * np.array([[cos * pose.stretch, sin * pose.stretch], [-sin, cos]])
    offset = (pose.x - left, pose.y - top)
    corners = [
        np.rint((contour @ turn + offset) * 2**_SHIFT).astype(np.int32)
        for contour in OUTLINES[name]
    ]

    def coverage(edge_width: float) -> Frame:
        mask = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(mask, corners, 255, cv2.LINE_AA, _SHIFT)
        # A wide line along the outline also rounds its corners.
        thickness = max(1, round(edge_width * pose.radius))
        cv2.polylines(mask, corners, True, 255, thickness, cv2.LINE_AA, _SHIFT)
        return mask

    inside, whole = coverage(0.08), coverage(0.08 + 2 * paint.edge_width)
    drop = 0.07 * pose.radius
    shadow = cv2.warpAffine(whole, np.array([[1, 0, drop], [0, 1, drop]]), whole.shape[::-1])
    blurred = max(3, round(0.16 * pose.radius) | 1)
    shadow = cv2.blur(cv2.blur(shadow, (blurred, blurred)), (blurred, blurred))
    _blend(part, np.zeros_like(part), shadow, 0.4)
    if paint.edge_width:
        _blend(part, np.full_like(part, paint.edge), whole, 1.0)
    middle = [(light + shade) / 2 for light, shade in zip(paint.light, paint.shade, strict=True)]
    ends = np.array([[paint.light, middle], [middle, paint.shade]], np.uint8)
    _blend(part, cv2.resize(ends, part.shape[1::-1]), inside, 1.0)


def _blend(frame: Frame, above: Frame, mask: Frame, opacity: float) -> None:
    """Lay `above` over `frame` (both [h, w, 3]) where `mask` [h, w] says so, in place."""
    cv2 = require("cv2", "cpu")
    weight = mask.astype(np.float32) * np.float32(opacity / 255)
    frame[...] = cv2.blendLinear(above, frame, weight, 1 - weight)


def _bgr(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return 255 * blue, 255 * green, 255 * red


def choose_paint(rng: np.random.Generator, hue: float, dark: bool) -> Paint:
    """Return colours that stand out from a background of that `hue` (0..1), `dark` or light."""
    hue += rng.uniform(0.2, 0.8)
    saturation = rng.uniform(0.15, 0.85) if dark else rng.uniform(0.65, 1.0)
    value = rng.uniform(0.88, 1.0) if dark else rng.uniform(0.3, 0.75)
    fade = rng.uniform(0.65, 0.85)
    return Paint(
        light=_bgr(hue, saturation, value),
        shade=_bgr(hue + rng.uniform(-0.08, 0.08), min(1.0, saturation * 1.15), value * fade),
        edge=_bgr(hue, 0.05, 1.0) if rng.random() < 0.7 else _bgr(hue, 0.7, 0.18),
        edge_width=rng.uniform(0.05, 0.11) if rng.random() < 0.6 else 0.0,
    )


def draw_background(
    rng: np.random.Generator, hue: float, dark: bool, height: int, width: int
) -> Frame:
    """Return a uint8 BGR frame [height, width, 3]: a gradient, soft texture and a faint pattern."""
    cv2 = require("cv2", "cpu")
    values = (0.12, 0.5) if dark else (0.72, 1.0)
    saturations = (0.35, 0.9) if dark else (0.06, 0.4)
    patches = [
        _bgr(hue + rng.uniform(-0.09, 0.09), rng.uniform(*saturations), rng.uniform(*values))
        for _ in range(9)
    ]
    size = (width, height)
    ground = cv2.resize(
        np.array(patches, np.float32).reshape(3, 3, 3), size, interpolation=cv2.INTER_CUBIC
    )
    cells = rng.integers(6, 40)
    clouds = rng.normal(0, rng.uniform(2, 9), (cells, cells)).astype(np.float32)
    relief = cv2.resize(clouds, size, interpolation=cv2.INTER_CUBIC)
    pattern = _draw_pattern(rng, height, width).astype(np.float32)
    relief += pattern * np.float32(rng.uniform(0.04, 0.13) * rng.choice([-1, 1]))
    background: Frame = np.clip(ground + relief[..., None], 0, 255).astype(np.uint8)
    return background


def _draw_pattern(rng: np.random.Generator, height: int, width: int) -> Frame:
    """Return grey [height, width]: nothing, discs out of focus, stripes or dots."""
    cv2 = require("cv2", "cpu")
    mask = np.zeros((height, width), np.uint8)
    side = min(height, width)
    kind = rng.integers(4)
    if kind == 1:
        for _ in range(rng.integers(5, 14)):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            radius = max(2, round(side * rng.uniform(0.03, 0.14)))
            disc = np.zeros_like(mask)
            cv2.circle(disc, centre, radius, int(rng.integers(90, 255)), -1, cv2.LINE_AA)
            mask = cv2.max(mask, disc)
    elif kind > 1:
        angle, pitch = rng.uniform(0, math.pi), side * rng.uniform(0.07, 0.2)
        y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(2 * math.pi / pitch)
        along = np.sin(x * math.cos(angle) + y * math.sin(angle))
        across = np.sin(y * math.cos(angle) - x * math.sin(angle))
        waves = along if kind == 2 else along * across
        mask = np.clip(128 + 400 * (waves - 0.2), 0, 255).astype(np.uint8)
    soft: Frame = cv2.GaussianBlur(mask, (0, 0), max(0.3, side * rng.uniform(0.002, 0.012)))
    return soft


def expose(frame: Frame, rng: np.random.Generator) -> Frame:
    """Return the BGR `frame` [h, w, 3] as a camera gives it: light, focus and noise vary a bit."""
    cv2 = require("cv2", "cpu")
    focus = rng.uniform(0, 0.011) * min(frame.shape[:2])
    if focus > 0.3:
        frame = cv2.GaussianBlur(frame, (0, 0), focus)
    bright = frame.astype(np.float32) * np.float32(rng.uniform(0.72, 1.15)) + np.float32(
        rng.uniform(-8, 14)
    )
    noise = rng.standard_normal(frame.shape, np.float32) * np.float32(rng.uniform(0, 7))
    return np.clip(bright + noise, 0, 255).astype(np.uint8)
