"""What each layer over a sequence becomes in one step of it, or why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from edgekit.converters.quantize.graph import Step, copy_of, repeat
from edgekit.converters.streaming.cells import CELLS, Builder, step_cell
from edgekit.errors import ModelError, require


@dataclass(frozen=True)
class Flow:
    """What stands in the model of one step for a tensor of the model over the sequence.

    Attributes:
        tensor: symbolic, [1, …]: one step of a sequence, or what the last step leads to.
        steps: length of the sequence; None: it is none.
    """

    tensor: Any
    steps: int | None


def next_of(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    """Add one step of a layer to the graph.

    Args:
        build: gets the layers and states.
        step: the layer in the graph over the sequence.
        given: what stands for each tensor that goes into it.

    Raises:
        ModelError: it needs more than the past, or is not known to do without.
    """
    kind, lengths = type(step.layer).__name__, {flow.steps for flow in given}
    if len(lengths) > 1:
        _refuse(step, "mixes a sequence with what its last step leads to", "split the model there")
    if kind in CELLS:
        return _recurrent(build, step, given)
    if lengths == {None}:
        return _after_the_last_step(build, step, given)
    if kind in _REASONS:
        _refuse(step, *_REASONS[kind])
    rule = _RULES.get(kind)
    if rule is None or not type(step.layer).__module__.startswith("keras."):
        known = ", ".join(sorted({*CELLS, *_RULES}))
        _refuse(step, "is not known to work step by step", f"those that do are {known}")
    return rule(build, step, given)


def _refuse(step: Step, reason: str, remedy: str) -> NoReturn:
    layer = step.layer
    raise ModelError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot stream: it {reason}; {remedy}"
    )


def _recurrent(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    layer, flow = step.layer, given[0]
    if flow.steps is None:
        _refuse(
            step, "runs over what is no sequence of steps any more", "convert without streaming"
        )
    if layer.go_backwards:
        _refuse(step, "begins with the last step, which a stream has not", "use go_backwards=False")
    if layer.return_state or len(given) > 1:
        _refuse(step, "hands its state to or takes it from another layer", "leave the state in it")
    output = step_cell(build, layer, flow.tensor)
    return Flow(output, flow.steps if layer.return_sequences else None)


def _after_the_last_step(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    if type(step.layer).__name__ == "RepeatVector":
        _refuse(step, "begins a new sequence once the first has ended", _WHOLE)
    return Flow(_again(build, step, given), None)


def _again(build: Builder, step: Step, given: Sequence[Flow]) -> Any:
    """Do the same on one step."""
    tensors = iter([flow.tensor for flow in given])
    keras: Any = require("keras", "convert")

    def swapped(leaf: Any) -> Any:
        return next(tensors) if isinstance(leaf, keras.KerasTensor) else leaf

    args, kwargs = keras.tree.map_structure(swapped, (step.args, step.kwargs))
    return repeat(build.graph, step, args, kwargs)


def _each(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    """Apply what acts on each number, or on the features of each step."""
    return Flow(_again(build, step, given), given[0].steps)


def _nothing(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    """Leave out what acts in training only."""
    return given[0]


def _along_axis(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    """Apply what acts along an axis, which must not be that of the steps."""
    layer = step.layer
    rank = len(step.inputs[0].shape)
    axis = layer.get_config().get("axis", -1)
    axes = [] if axis is None else [*axis] if isinstance(axis, list | tuple) else [axis]
    axes = [place % rank for place in axes]
    if 1 in axes:
        _refuse(step, "acts along the steps, all of which it needs", "let it act on the features")
    moved = [place - 1 for place in axes]
    changed = (
        copy_of(layer, axis=moved if isinstance(axis, list | tuple) else moved[0])
        if axes
        else copy_of(layer)
    )
    result = build.graph.call(
        changed, *([flow.tensor for flow in given],) if len(given) > 1 else (given[0].tensor,)
    )
    _take_weights(changed, layer)
    return Flow(result, given[0].steps)


def _take_weights(layer: Any, trained: Any) -> None:
    """Give a layer of one step the weights of that over the sequence."""
    pairs = zip(layer.weights, trained.get_weights(), strict=True)
    layer.set_weights([np.reshape(values, weight.shape) for weight, values in pairs])
    if hasattr(layer, "finalize_state"):  # Normalization derives constants from its weights
        layer.finalize_state()


def _prelu(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    layer = step.layer
    shared = [place for place in layer.shared_axes or () if place != 1]
    if 1 not in (layer.shared_axes or ()):
        _refuse(step, "has a slope for each step", "build it with shared_axes=[1]")
    changed = copy_of(layer, shared_axes=[place - 1 for place in shared] or None)
    result = build.graph.call(changed, given[0].tensor)
    _take_weights(changed, layer)
    return Flow(result, given[0].steps)


def _distributed(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    inner = step.layer.layer
    copy = copy_of(inner, name=f"{step.layer.name}_{inner.name}")
    result = build.graph.call(copy, given[0].tensor)
    copy.set_weights(inner.get_weights())
    return Flow(result, given[0].steps)


def _reshape(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    shape, steps = tuple(step.outputs[0].shape), given[0].steps
    if len(shape) < 3 or shape[1] != steps:
        _refuse(step, "mixes the steps with the features", _WHOLE)
    return Flow(
        build.call("Reshape", step.layer.name, given[0].tensor, target_shape=shape[2:]), steps
    )


def _convolution(build: Builder, step: Step, given: Sequence[Flow]) -> Flow:
    """Keep the inputs that a causal convolution reaches back to: zero at first, as its padding."""
    layer, x = step.layer, given[0].tensor
    (kernel,), (stride,), (dilation,) = layer.kernel_size, layer.strides, layer.dilation_rate
    reach = (kernel - 1) * dilation
    if stride > 1:
        _refuse(step, f"gives an output for every {stride} steps", "build it with strides=1")
    if reach and layer.padding != "causal":
        _refuse(
            step,
            f"has padding {layer.padding!r} and so reads later steps",
            "train it with padding='causal'",
        )
    name, features = layer.name, x.shape[-1]
    window = build.call("Reshape", f"{name}_x", x, target_shape=(1, features))
    if reach:
        past = build.state(f"{name}_past", (reach, features))
        ending = window
        if reach > 1:
            kept = build.call("Cropping1D", f"{name}_kept", past.given, cropping=(1, 0))
            ending = build.call("Concatenate", f"{name}_past_next", kept, window, axis=1)
        past.left = ending
        window = build.call("Concatenate", f"{name}_window", past.given, window, axis=1)
    changed = copy_of(layer, padding="valid")
    result = build.graph.call(changed, window)
    changed.set_weights(layer.get_weights())
    flat = build.call("Reshape", f"{name}_y", result, target_shape=(result.shape[-1],))
    return Flow(flat, given[0].steps)


_WHOLE = "convert without streaming, on windows of the whole length"
_CAUSAL = "train it with causal Conv1D or with recurrent layers in its place"
_REASONS = {
    "Bidirectional": (
        "reads the sequence from its end too, and a stream has no end yet",
        "train with the layer inside alone, or convert without streaming",
    ),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalMaxPooling1D"),
        (
            "is over the whole sequence, and a stream has no end",
            "end with a recurrent layer with return_sequences=False instead, or convert without "
            "streaming",
        ),
    ),
    **dict.fromkeys(
        ("MaxPooling1D", "AveragePooling1D"),
        ("joins several steps to one", _CAUSAL),
    ),
    **dict.fromkeys(
        ("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention"),
        ("compares all steps with each other, later ones too", _CAUSAL),
    ),
    **dict.fromkeys(
        ("Flatten", "Permute", "Cropping1D", "ZeroPadding1D", "UpSampling1D", "Conv1DTranspose"),
        ("mixes or moves the steps", _WHOLE),
    ),
}
_RULES: dict[str, Callable[[Builder, Step, Sequence[Flow]], Flow]] = {
    **dict.fromkeys(("Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "Rescaling"), _each),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), _each),
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "AlphaDropout", "GaussianDropout"), _nothing),
    **dict.fromkeys(("GaussianNoise", "ActivityRegularization"), _nothing),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization", "Normalization"), _along_axis),
    **dict.fromkeys(("Softmax", "Concatenate", "UnitNormalization"), _along_axis),
    "PReLU": _prelu,
    "TimeDistributed": _distributed,
    "Reshape": _reshape,
    "Conv1D": _convolution,
}
