"""Whether values are in the scale that frames get from the preprocess."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.audit.finding import Finding
from edgekit.specs import PRESETS, Preprocess, TensorSpec


class Scale:
    """Values in another scale than frames get from the preprocess."""

    def __init__(self, preprocess: Preprocess, spec: TensorSpec) -> None:
        self._yields = yielded_range(preprocess)
        self._low, self._high, self._largest_byte = np.inf, -np.inf, -1
        self._floats = self._outside = 0
        # Nothing is expected of arrays that are not scaled, like spectra, nor of token ids.
        as_they_are = yielded_range(preprocess) == yielded_range(PRESETS["raw"])
        is_integer = np.dtype(spec.dtype).kind in "iu" and spec.scale is None
        is_coloured = spec.is_image and spec.shape[3 if spec.image_layout == "nhwc" else 1] == 3
        self._judges_bytes = not is_integer and (spec.is_image or not as_they_are)
        # Floats that are no picture are preprocessed too: they are not to look like its result.
        self._judges_floats = spec.is_image and not is_integer and (is_coloured or not as_they_are)

    def add(self, index: int, values: NDArray[Any], is_copy: bool) -> None:
        if values.dtype == np.uint8:
            self._largest_byte = max(self._largest_byte, int(values.max()))
        elif values.dtype.kind == "f":
            low, high = float(values.min()), float(values.max())
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._floats += 1
            least, most = self._yields
            slack = 0.02 * (most - least)  # resizing by cubic splines overshoots
            self._outside += low < least - slack or high > most + slack

    def finding(self, name: str, total: int) -> Finding | None:
        if self._judges_bytes and self._largest_byte in (0, 1):
            message = (
                f"no value of the uint8 frames of {name} is above {self._largest_byte}; frames "
                "hold 0..255 before the preprocess: multiply them by 255, or give them as floats"
            )
            return Finding("scale", message, total)
        if not self._judges_floats or not self._floats:
            return None
        least, most = self._yields
        seen, expected = self._high - self._low, most - least
        preset = _preset_of(self._low, self._high)
        # Dim or soft pictures use a part of the range; one that is just another preset's is none.
        is_narrow = seen < 0.05 * expected or (
            preset is not None and np.ptp(yielded_range(PRESETS[preset])) < 0.6 * expected
        )
        if not self._outside and not is_narrow:
            return None
        count = self._outside or self._floats
        message = (
            f"{count} of {total} samples of {name} are in another scale than the preprocess gives "
            f"frames: floats of {self._low:.4g}..{self._high:.4g}, expected {least:.4g}.."
            f"{most:.4g}: " + _advice(preset)
        )
        return Finding("scale", message, count)


def yielded_range(preprocess: Preprocess) -> tuple[float, float]:
    """Return the least and the largest real value that `preprocess` makes of pixels 0..255."""
    ends = np.array([[0.0], [255.0]]) * preprocess.scale
    values = (ends - np.array(preprocess.mean)) / np.array(preprocess.std)
    return float(values.min()), float(values.max())


def _preset_of(low: float, high: float) -> str | None:
    """Return the preset that yields just the values `low` to `high`, where there is one."""
    for name, preset in PRESETS.items():
        least, most = yielded_range(preset)
        if max(abs(low - least), abs(high - most)) < 0.05 * (most - least):
            return name
    return None


def _advice(preset: str | None) -> str:
    if preset is None:
        return "scale them as the preprocess does, or give uint8 frames"
    return f"they look like `{preset}`: choose that preprocess, or give uint8 frames"
