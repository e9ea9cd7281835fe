"""Preprocessings that a model may have been trained with, and what it is called to take another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import msgspec

from edgekit.specs import PRESETS, Color, Interpolation, Preprocess, Resize

COLORS: tuple[Color, ...] = ("rgb", "bgr")
RESIZES: tuple[Resize, ...] = ("stretch", "letterbox", "center_crop")
INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "linear", "area", "cubic")

AXES = {
    "values": ("scale", "mean", "std"),
    "color": ("color",),
    "resize": ("resize",),
    "interpolation": ("interpolation",),
}
"""What can be wrong with a preprocessing, and the fields of `Preprocess` that say it."""

_LARGE = 32.0  # inputs that go beyond are pixels, not scaled


class Values(NamedTuple):
    """What becomes of a pixel's value, as `Preprocess` has it, and its name among people."""

    name: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def span(self) -> tuple[float, float]:
        """Return the least and the largest number that a pixel can become."""
        pairs = [(m, s) for m in self.mean for s in self.std]
        ends = [(p * self.scale - m) / s for m, s in pairs for p in (0, 255)]
        return min(ends), max(ends)


def _of(name: str, preprocess: Preprocess) -> Values:
    return Values(name, preprocess.scale, preprocess.mean, preprocess.std)


_IMAGENET, _CAFFE = PRESETS["imagenet"], PRESETS["caffe"]
_ONE_CHANNEL = (
    _of("0..255", PRESETS["raw"]),
    _of("0..1", PRESETS["unit"]),
    _of("-1..1", PRESETS["signed"]),
    Values("-0.5..0.5", 1 / 255, (0.5,), (1.0,)),
    Values("-128..127", 1.0, (128.0,), (1.0,)),
    Values("0..1, divided by 255 twice", 1 / 255**2, (0.0,), (1.0,)),
    Values("-1..1 of values that were 0..1", 1 / 255 / 127.5, (1.0,), (1.0,)),
)
_THREE_CHANNELS = (
    _of("0..1 less ImageNet's mean, by its std", _IMAGENET),
    Values(
        "0..1 less ImageNet's mean, by its std, both in reverse order",
        _IMAGENET.scale,
        _IMAGENET.mean[::-1],
        _IMAGENET.std[::-1],
    ),
    Values("0..255 less ImageNet's mean of 0..1", 1.0, _IMAGENET.mean, _IMAGENET.std),
    _of("0..255 less the means of caffe", _CAFFE),
    Values("0..255 less the means of caffe in reverse order", 1.0, _CAFFE.mean[::-1], (1.0,)),
)


def values_of(preprocess: Preprocess) -> Values:
    """Return what `preprocess` does to the values of pixels, by its usual name if it has one."""
    own = _of(_as_numbers(preprocess), preprocess)
    known = (*_ONE_CHANNEL, *_THREE_CHANNELS)
    return next((v for v in known if _is_close(v, own)), own)


def _is_close(one: Values, other: Values) -> bool:
    pairs = [((one.scale,), (other.scale,)), (one.mean, other.mean), (one.std, other.std)]
    return all(len(a) == len(b) and all(map(math.isclose, a, b)) for a, b in pairs)


def _as_numbers(preprocess: Preprocess) -> str:
    bare = Preprocess(scale=preprocess.scale, mean=preprocess.mean, std=preprocess.std)
    return bare.as_text()


def other_values(declared: Preprocess) -> Iterator[Preprocess]:
    """Return `declared` with every usual treatment of values and order of colours."""
    gray = declared.color == "gray"
    own = values_of(declared)
    known = (own, *_ONE_CHANNEL) if gray else (own, *_ONE_CHANNEL, *_THREE_CHANNELS)
    for values, color in product(known, (declared.color,) if gray else COLORS):
        yield msgspec.structs.replace(
            declared, scale=values.scale, mean=values.mean, std=values.std, color=color
        )


def other_resizes(declared: Preprocess) -> Iterator[Preprocess]:
    """Return `declared` with every way to come to the model's size."""
    if declared.resize not in RESIZES:
        return
    for resize, interpolation in product(RESIZES, INTERPOLATIONS):
        yield msgspec.structs.replace(declared, resize=resize, interpolation=interpolation)


def with_axis_of(axis: str, preprocess: Preprocess, other: Preprocess) -> Preprocess:
    """Return `preprocess` with what `other` says on one of `AXES`."""
    fields = {field: getattr(other, field) for field in AXES[axis]}
    return msgspec.structs.replace(preprocess, **fields)


def describe(axis: str, preprocess: Preprocess) -> str:
    """Return what `preprocess` does on one of `AXES`, for people."""
    if axis == "values":
        return values_of(preprocess).name
    return str(getattr(preprocess, AXES[axis][0]))


def explain(axis: str, declared: Preprocess, found: Preprocess) -> str:
    """Return a sentence on the fault: the bundle says `declared`, the model wants `found`."""
    said, wanted = describe(axis, declared), describe(axis, found)
    if axis == "color":
        return f"the colour channels are swapped: the model wants {wanted}, the bundle says {said}"
    if axis == "resize":
        return f"the way to the model's size differs: the model wants {wanted}, not {said}"
    if axis == "interpolation":
        return f"the resize kernel differs: the model wants {wanted}, not {said}"
    return _explain_values(values_of(declared), values_of(found))


def _explain_values(said: Values, wanted: Values) -> str:
    both = f"the model wants {wanted.name}, the bundle makes {said.name}"
    # A channel's mean is no scaling: which of the two is large tells what was forgotten.
    is_scaled, should_be = (max(map(abs, v.span())) < _LARGE for v in (said, wanted))
    if is_scaled and not should_be:
        return f"scaling is doubled, the model has its own or needs none: {both}"
    if should_be and not is_scaled:
        return f"scaling is missing: {both}"
    reverse = said.mean[::-1], said.std[::-1]
    if said.scale == wanted.scale and reverse == (wanted.mean, wanted.std):
        return f"mean and std are in the order of the other channels: {both}"
    if said.scale == wanted.scale and not any(said.mean):
        return f"the mean (and std) is missing: {both}"
    if said.scale == wanted.scale and not any(wanted.mean):
        return f"a mean (and std) is taken off that the model was not trained with: {both}"
    return f"the range of values differs: {both}"
