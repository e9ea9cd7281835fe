"""Cross-layer equalization: channels of one tensor brought to a like range, the function unchanged.

A tensor has one int8 scale for all its channels, so a wide one leaves the narrow ones a few steps.
What a layer's output channel is divided by, the layers that read it multiply back; ReLU and other
positively homogeneous layers let the factor through, sums need the same factor on all their terms.
ReLU6 lets it through below 6: channels that were observed to stay there may grow towards it.
After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, with observed activations in the place of the producing layer's weights: these have a
scale for each channel, which equalization cannot make better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.graph import Graph, Step
from edgekit.converters.quantize.linear import (
    is_depthwise,
    is_linear,
    kind_of,
    out_channels,
    output_range,
    per_input,
    per_output,
    set_weights,
    weights_of,
)
from edgekit.errors import require

_LETS_THROUGH = (
    "LeakyReLU",
    "PReLU",
    "MaxPooling1D",
    "MaxPooling2D",
    "AveragePooling1D",
    "AveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "Cropping1D",
    "Cropping2D",
    "UpSampling1D",
    "UpSampling2D",
    "Identity",
)
_SUMS = ("Add", "Subtract", "Average", "Maximum", "Minimum")
_BORDER = "the model's inputs and outputs"
_LARGEST_FACTOR = 1e4
# A channel may grow until its largest observed value, times this, meets the limit of a bounded
# activation. On pictures that were not observed the float function then stays to 76 dB or more
# (MobileNets V1 and V2 with ReLU6; 1.5: 66 dB on V2, 1.1: 49 dB on V1).
_HEADROOM = 2.0
# How evenness is shared between activations and the weights that read them; the two add up to 1,
# so that factors which undo each other in a model make no difference. 0.7 to 0.9 measured best.
_SHARE = 0.75


class Group:
    """Tensors whose channels must share their factors.

    Attributes:
        makers: linear steps whose output is in it.
        readers: linear steps whose input is in it.
        tensors: ids of all its tensors.
        pinned: what else touches it, so that it keeps its ranges.
        limit: of the lowest bounded activation in it, such as 6 of ReLU6; infinite without one.
    """

    def __init__(self) -> None:
        self.makers: list[Step] = []
        self.readers: list[Step] = []
        self.tensors: set[int] = set()
        self.pinned: list[str] = []
        self.limit = math.inf

    def absorb(self, other: Group) -> None:
        """Take everything of `other`."""
        self.makers += other.makers
        self.readers += other.readers
        self.tensors |= other.tensors
        self.pinned += other.pinned
        self.limit = min(self.limit, other.limit)


def groups_of(graph: Graph) -> list[Group]:
    """Return the groups that come out of a linear layer."""
    groups: dict[int, Group] = {}

    def group(tensor: Any) -> Group:
        found = groups.setdefault(id(tensor), Group())
        found.tensors.add(id(tensor))
        return found

    def tie(tensors: list[Any]) -> None:
        first = group(tensors[0])
        for tensor in tensors[1:]:
            other = group(tensor)
            if other is not first:
                first.absorb(other)
                groups.update({key: first for key in other.tensors})

    for tensor in [*graph.inputs, *graph.outputs]:
        group(tensor).pinned.append(_BORDER)
    users = graph.users()
    for step in graph.steps:
        if is_linear(step):
            group(step.inputs[0]).readers.append(step)
            group(step.outputs[0]).makers.append(step)
        elif _lets_through(step, users):
            tie([*step.inputs, *step.outputs])
            first = group(step.inputs[0])
            first.limit = min(first.limit, _limit(step.layer))
        else:
            is_last = all(users.get(id(tensor)) == [None] for tensor in step.outputs)
            what = _BORDER if is_last else _what(step.layer)
            for tensor in [*step.inputs, *step.outputs]:
                group(tensor).pinned.append(what)
    distinct = {id(one): one for one in groups.values()}.values()
    return [one for one in distinct if one.makers]


def equalize(graph: Graph, ranges: Mapping[int, NDArray[Any]]) -> tuple[str, ...]:
    """Scale the weights of `graph` in place; returns what could not be equalized.

    Args:
        graph: folded: linear layers have a bias and no activation.
        ranges: largest |value| of each channel, by the id of the tensor, of those tensors that
            will be int8; others are not in it.
    """
    for group in groups_of(graph):
        if group.readers and not group.pinned:
            _scale(group, _factors(group, ranges))
    stuck: dict[str, list[str]] = {}
    for group in groups_of(graph):
        if set(group.pinned) - {_BORDER}:
            names = stuck.setdefault(_reason(group), [])
            names += [step.layer.name for step in group.makers]
    return tuple(
        f"{_listed(names)}: channels not equalized, since their factors do not pass {reason}"
        for reason, names in stuck.items()
    )


def _reason(group: Group) -> str:
    return ", ".join(sorted(set(group.pinned)))


def _listed(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    )


def _what(layer: Any) -> str:
    """Return what a layer is, for people: its class, or which activation it is."""
    name = type(layer).__name__
    if name == "ReLU" and layer.max_value is not None:
        return f"ReLU{layer.max_value:g}"
    if name == "Activation":
        return str(getattr(layer.activation, "__name__", layer.activation))
    return name


def _limit(layer: Any) -> float:
    """Return the largest value that an activation gives."""
    if type(layer).__name__ == "Activation":
        relu6 = require("keras", "convert").activations.relu6
        return 6.0 if layer.activation is relu6 else math.inf
    largest = getattr(layer, "max_value", None)
    return math.inf if largest is None else float(largest)


def _lets_through(step: Step, users: Mapping[int, list[Step | None]]) -> bool:
    """Whether a positive factor on an input channel becomes that factor on the output channel."""
    activations = require("keras", "convert").activations
    layer, name = step.layer, type(step.layer).__name__
    if step.kwargs or type(layer).__module__.partition(".")[0] != "keras":
        return False
    if name == "ReLU":
        return not layer.threshold
    if name == "Activation":
        return layer.activation in (activations.relu, activations.relu6, activations.linear)
    if name in _SUMS:
        return len({tuple(tensor.shape) for tensor in step.inputs}) == 1
    if name == "Flatten":  # dense layers repeat the factors; nothing else knows how
        readers = users.get(id(step.outputs[0]), [None])
        return len(step.inputs[0].shape) > 2 and all(
            reader is not None and kind_of(reader.layer) == "Dense" for reader in readers
        )
    return name in _LETS_THROUGH


def _factors(group: Group, ranges: Mapping[int, NDArray[Any]]) -> NDArray[Any]:
    """Return what each channel is divided by.

    Wide activations are divided down. Where a reader mixes channels, not all the way, so that its
    weights do not become as uneven as the activations were.
    """
    channels = out_channels(group.makers[0].layer)
    seen = [ranges[key].reshape(-1, channels).max(0) for key in group.tensors if key in ranges]
    if not seen:
        return np.ones(channels)
    peaks = np.max(seen, axis=0)
    is_bounded = np.isfinite(group.limit)
    wide = peaks / group.limit if is_bounded else _even(peaks)
    mixing = [step.layer for step in group.readers if not is_depthwise(step.layer)]
    if mixing:
        reads = np.max([_even(_input_range(layer, channels)) for layer in mixing], axis=0)
        wide = wide**_SHARE / reads ** (1 - _SHARE)
    if is_bounded:
        # Beyond its limit an activation lets no factor through.
        room = _HEADROOM * peaks / group.limit
        return np.where((room < 1) & (peaks > 1e-6 * group.limit), np.clip(wide, room, 1), 1.0)
    return np.asarray(np.clip(wide, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR))


def _even(values: NDArray[Any]) -> NDArray[Any]:
    """Return positive values around 1; channels that are always zero count as usual ones."""
    alive = values > 1e-6 * values.max(initial=0)
    if not alive.any():
        return np.ones(len(values))
    middle = np.exp(np.log(values[alive]).mean())
    return np.where(alive, values / middle, 1.0)


def _input_range(layer: Any, channels: int) -> NDArray[Any]:
    """Return the largest |weight| that reads each channel, as a part of its output channel's."""
    kernel, _ = weights_of(layer)
    largest = output_range(layer, kernel)
    share = np.abs(kernel) / per_output(layer, np.where(largest > 0, largest, 1))
    if "Transpose" in type(layer).__name__:
        share = share.swapaxes(-1, -2)
    groups = getattr(layer, "groups", 1)
    split = share.reshape(-1, share.shape[-2], groups, share.shape[-1] // groups)
    by_input = split.max(axis=(0, 3)).T.reshape(-1)
    return np.asarray(by_input.reshape(-1, channels).max(0))


def _scale(group: Group, factors: NDArray[Any]) -> None:
    for step in group.makers:
        kernel, bias = weights_of(step.layer)
        set_weights(step.layer, kernel / per_output(step.layer, factors), bias / factors)
    for step in group.readers:
        kernel, bias = weights_of(step.layer)
        repeats = int(step.inputs[0].shape[-1]) // len(factors)
        set_weights(step.layer, kernel * per_input(step.layer, np.tile(factors, repeats)), bias)
