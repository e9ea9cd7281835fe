"""BatchNormalization into the weights beside it, as TensorFlow's converter would do it later.

It must happen before weights are rounded, or the converter would scale the rounded ones.
Normalization and Rescaling go the same way. What no layer beside it can take becomes a depthwise
convolution of one tap: a scale and a shift in one operator, where the converter would make two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.explicit import explicit
from edgekit.converters.quantize.graph import Graph, Step, copy_of, rebuild, repeat
from edgekit.converters.quantize.linear import (
    is_depthwise,
    is_linear,
    kind_of,
    per_input,
    per_output,
    set_weights,
    weights_of,
)
from edgekit.converters.quantize.parts import Parts
from edgekit.errors import require

Array = NDArray[Any]
_SILENT = (
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "Identity",
)
_SCALES = ("BatchNormalization", "Normalization", "Rescaling")


def fold(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """Return a graph with scales and shifts folded, and what was left as it is.

    Each layer is one operator where it can be (`explicit`), all linear layers have a bias, and
    layers that only act in training are gone.
    """
    clear = explicit(_without_training_layers(graph))
    plan = FoldPlan(clear)
    parts = Parts()

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if step in plan.folded:
            return args[0]
        if step in plan.alone:
            return _alone(new, parts, step, args[0], plan.after.get(step, ()))
        if not is_linear(step):
            return repeat(new, step, args, kwargs)
        return _emit_linear(new, step, args[0], plan.before.get(step), plan.after.get(step, ()))

    return rebuild(clear, emit), _notes(clear)


def fold_for_training(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """Return a graph in which `fold` can fold all, and which still trains as the model does.

    A BatchNormalization goes on behind a linear layer: behind its own, or where it stands alone
    behind a depthwise convolution of ones. Before a linear layer it is folded here. Shared layers
    stay shared.
    """
    clear = explicit(graph)
    plan = FoldPlan(clear, trains=True)
    parts = Parts()
    folded_now = {step for step in plan.before.values() if _is_trained(step)}

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if step in plan.alone:
            return _alone(new, parts, step, args[0], (), trains=True)
        if step in folded_now:
            return args[0]
        if plan.before.get(step) in folded_now:
            return _emit_linear(new, step, args[0], plan.before[step])
        return parts.repeat(new, step, args, kwargs)

    return rebuild(clear, emit), _notes(clear)


class FoldPlan:
    """Which scales and shifts go into which linear layer.

    Attributes:
        after: linear step, or one of `alone` -> the scales of its output, in order.
        before: linear step -> the scale of its input.
        folded: all those scales.
        alone: scales that no linear step takes.
    """

    def __init__(self, graph: Graph, *, trains: bool = False) -> None:
        self.after: dict[Step, list[Step]] = {}
        self.before: dict[Step, Step] = {}
        self.alone: set[Step] = set()
        self._calls = Counter(id(step.layer) for step in graph.steps)
        makers, users = graph.makers(), graph.users()
        linear_behind: dict[Step, Step] = {}
        for step in graph.steps:
            if not _is_plain_scale(step):
                continue
            maker = makers.get(id(step.inputs[0]))
            if maker is not None and len(users[id(step.inputs[0])]) == 1:
                linear = maker if is_linear(maker) else linear_behind.get(maker)
                if linear is not None:
                    self.after.setdefault(linear, []).append(step)
                    linear_behind[step] = linear
                    continue
            (user, *others) = users.get(id(step.outputs[0]), [None])
            if user is not None and not others and self._takes_before(user, step, trains):
                self.before[user] = step
            else:
                self.alone.add(step)
                linear_behind[step] = step  # it becomes one
        self.folded = {step for steps in self.after.values() for step in steps}
        self.folded |= set(self.before.values())

    def _takes_before(self, step: Step, scale: Step, trains: bool) -> bool:
        """Whether a layer can take a scale of its input exactly: zeros in the padding cannot."""
        if not is_linear(step) or "Transpose" in type(step.layer).__name__:
            return False
        factors, shift = scale_and_shift(scale)
        if trains and _is_trained(scale):
            if self._calls[id(step.layer)] > 1:
                return False
        elif trains and (shift.any() or np.ptp(factors)):
            # It stays where it is while training, and would scale rounded weights unevenly.
            return False
        if kind_of(step.layer) == "Dense":
            return True
        is_padded = step.layer.padding != "valid" and max(step.layer.kernel_size) > 1
        return not is_padded or not shift.any()


def _is_trained(step: Step) -> bool:
    return type(step.layer).__name__ == "BatchNormalization"


def _is_plain_scale(step: Step) -> bool:
    """Whether a step multiplies each channel with a number and adds one, when it is not trained."""
    layer, kind = step.layer, type(step.layer).__name__
    if kind not in _SCALES or len(step.inputs) != 1 or len(step.inputs[0].shape) < 2:
        return False
    if step.kwargs.get("training") or not str(step.inputs[0].dtype).startswith("float"):
        return False
    last = len(step.inputs[0].shape) - 1
    if kind == "BatchNormalization":
        axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
        return int(axis) % (last + 1) == last
    channels = step.inputs[0].shape[-1]
    if kind == "Normalization":
        return all(np.size(value) in (1, channels) for value in (layer.mean, layer.variance))
    return all(
        np.size(value) == 1 or np.shape(value) == (channels,)
        for value in (layer.scale, layer.offset)
    )


def scale_and_shift(step: Step) -> tuple[Array, Array]:
    """Return what each channel of a step's input is multiplied with, and what is added then."""
    layer, kind = step.layer, type(step.layer).__name__
    channels = (step.inputs[0].shape[-1],)
    if kind == "Rescaling":
        scale, shift = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    elif kind == "Normalization":
        scale, shift = _of_normalization(layer)
    else:
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        scale = 1 / np.sqrt(variance + layer.epsilon)
        if layer.scale:
            scale = scale * np.asarray(layer.gamma)
        shift = -mean * scale
        if layer.center:
            shift = shift + np.asarray(layer.beta)
    return np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)


def _of_normalization(layer: Any) -> tuple[Array, Array]:
    least = require("keras", "convert").config.epsilon()
    mean = np.asarray(layer.mean, np.float64).reshape(-1)
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance, np.float64)), least).reshape(-1)
    return (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)


def _without_training_layers(graph: Graph) -> Graph:
    def is_silent(step: Step) -> bool:
        return type(step.layer).__name__ in _SILENT and not step.kwargs.get("training")

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0] if is_silent(step) else repeat(new, step, args, kwargs)

    return rebuild(graph, emit) if any(map(is_silent, graph.steps)) else graph


def _notes(graph: Graph) -> tuple[str, ...]:
    return tuple(
        f"{step.layer.name} ({type(step.layer).__name__}) does not scale the channels of one "
        "tensor of floats: it stays as it is"
        for step in graph.steps
        if type(step.layer).__name__ in _SCALES and not _is_plain_scale(step)
    )


def _response(layer: Any, kernel: Array, shift: Array) -> Array:
    """Return each output channel's answer to an input that is `shift` everywhere."""
    product = kernel * per_input(layer, shift)
    if is_depthwise(layer):
        return np.asarray(product.reshape(-1, product.shape[-2] * product.shape[-1]).sum(0))
    return np.asarray(product.sum(axis=tuple(range(product.ndim - 1))))


def _emit_linear(
    graph: Graph, step: Step, tensor: Any, before: Step | None, after: Sequence[Step] = ()
) -> Any:
    """Call a copy of a linear layer, with a bias, that has taken the scales beside it."""
    layer = step.layer
    kernel, bias = weights_of(layer)
    if before is not None:
        scale, shift = scale_and_shift(before)
        bias = bias + _response(layer, kernel, shift)
        kernel = kernel * per_input(layer, scale)
    for follower in after:
        scale, shift = scale_and_shift(follower)
        kernel, bias = kernel * per_output(layer, scale), bias * scale + shift
    copy = copy_of(layer, use_bias=True)
    result = graph.call(copy, tensor)
    set_weights(copy, kernel, bias)
    return result


def _alone(
    graph: Graph,
    parts: Parts,
    step: Step,
    tensor: Any,
    after: Sequence[Step],
    *,
    trains: bool = False,
) -> Any:
    """Scale and shift the channels of a tensor of any rank by a depthwise convolution.

    In training a BatchNormalization stays, behind a convolution of ones.
    """
    layers, layer, name = require("keras", "convert").layers, step.layer, step.layer.name
    is_trained = trains and _is_trained(step)
    shape = tuple(tensor.shape[1:])
    rows = shape if len(shape) in (2, 3) else (int(np.prod(shape[:-1], dtype=int)), shape[-1])
    if rows != shape:
        make_rows = partial(layers.Reshape, rows, name=f"{name}_rows")
        tensor = parts.call(graph, step, "rows", make_rows, tensor)
    scale, shift = np.ones(rows[-1]), np.zeros(rows[-1])
    for factors, summands in () if is_trained else map(scale_and_shift, (step, *after)):
        scale, shift = scale * factors, shift * factors + summands
    make = partial(getattr(layers, f"DepthwiseConv{len(rows) - 1}D"), 1, name=name, trainable=False)
    weights = [scale.reshape(*[1] * (len(rows) - 1), -1, 1), shift]
    result = parts.call(
        graph, step, "scale", make, tensor, weights=[w.astype(np.float32) for w in weights]
    )
    if is_trained:
        make_statistics = partial(copy_of, layer, axis=-1, name=f"{name}_statistics")
        result = parts.call(
            graph, step, "statistics", make_statistics, result, weights=layer.get_weights()
        )
    if rows != shape:
        make_shape = partial(layers.Reshape, shape, name=f"{name}_shape")
        result = parts.call(graph, step, "shape", make_shape, result)
    return result
