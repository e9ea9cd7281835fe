"""Which tensor of a float graph is int8 on which grid, as LiteRT's operators want it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgekit.converters.quantize.explicit import activation_name, is_of_keras
from edgekit.converters.quantize.fold import FoldPlan
from edgekit.converters.quantize.graph import Graph, Step
from edgekit.converters.quantize.linear import is_linear
from edgekit.converters.quantize.ranges import Range, Scheme
from edgekit.converters.quantize.walk import is_fused_relu, takes_relu

_ARITHMETIC = ("Add", "Subtract", "Multiply")
_MERGES = ("Concatenate", "Maximum", "Minimum")
_POOLS = ("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
_KEEPS_GRID = (
    *_POOLS,
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "UpSampling1D", "UpSampling2D"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "Resizing"),
    *("Reshape", "Flatten", "Permute", "RepeatVector", "Identity"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout"),
    *("GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    # Operations of keras.ops, and slices of a tensor.
    *("Transpose", "ExpandDims", "Squeeze", "GetItem", "Ravel", "Slice", "Swapaxes"),
)
_MEANS = ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "Mean")
LEAST_WIDTH = 1e-6
_RELUS = ("relu", "relu6")
_ACTIVATIONS = (*_RELUS, "leaky_relu", "prelu", "elu", "gelu", "hard_silu")
# The operator's own grid: 1/256 from 0, or 1/128 around 0.
_FIXED = {
    "sigmoid": Range(0.0, 255 / 256),
    "softmax": Range(0.0, 255 / 256),
    "tanh": Range(-1.0, 127 / 128),
}


@dataclass(frozen=True)
class Place:
    """How one tensor is quantized.

    Attributes:
        kind: ``own``, a range that is observed; ``fixed``; or ``same``, that of another tensor.
        fixed: the range that is known beforehand.
        source: id of the tensor whose range it has.
        rounds: whether the operator gives values beside that grid, which must be rounded to it.
        is_final: whether clipping it would clip the model's answer.
    """

    kind: Literal["own", "fixed", "same"]
    fixed: Range | None = None
    source: int | None = None
    rounds: bool = False
    is_final: bool = False


def range_on(scheme: Scheme, lowest: float, highest: float) -> Range:
    """Return the range that a scheme makes of the ends: zero is in it, and it has a width."""
    lowest, highest = min(lowest, 0.0), max(highest, 0.0, lowest + LEAST_WIDTH)
    if scheme == "tensorrt":
        return Range(-max(-lowest, highest), max(-lowest, highest))
    return Range(lowest, highest)


def place(graph: Graph) -> dict[int, Place]:
    """Return the place of each tensor that has a grid, by its id.

    A tensor without one is folded or fused away, takes that of the concatenation (or maximum) which
    alone reads it, or holds no floats.

    Args:
        graph: as `fold` or `fold_for_training` gives it.
    """
    hidden = _hidden_tensors(graph)
    final = _final_tensors(graph)
    merged, makers = _merged_tensors(graph), graph.makers()
    places = {id(t): Place("own") for t in graph.inputs if _is_float(t)}
    for step in graph.steps:
        for tensor in step.outputs:
            if id(tensor) in hidden or not _is_float(tensor):
                continue
            found = _place_of(step, places, makers)
            if found.kind == "own" and id(tensor) in merged:
                continue
            if found.kind == "own" and id(tensor) in final:
                found = Place("own", is_final=True)
            places[id(tensor)] = found
    return places


def float_steps(graph: Graph) -> list[Step]:
    """Return the steps that compute in floats inside an int8 model: no rule here knows them."""
    plan = FoldPlan(graph, trains=True)
    return [
        step
        for step in graph.steps
        if step not in plan.folded
        and any(_is_float(tensor) for tensor in step.outputs)
        and not _is_known(step)
    ]


def _is_known(step: Step) -> bool:
    kind = type(step.layer).__name__
    if is_linear(step):
        return True
    return is_of_keras(step.layer) and (
        kind in (*_ARITHMETIC, *_MERGES, *_KEEPS_GRID, *_MEANS)
        or activation_name(step.layer) in (*_ACTIVATIONS, *_FIXED, "linear")
    )


def _place_of(step: Step, places: Mapping[int, Place], makers: Mapping[int, Step]) -> Place:
    if not is_of_keras(step.layer) or not step.inputs:
        return Place("own")
    name = activation_name(step.layer)
    source = id(step.inputs[0])
    if name in _FIXED:
        return Place("fixed", fixed=_FIXED[str(name)])
    if source in places and (keeps_grid(step) or _is_relu_of_a_pool(step, makers)):
        return Place("same", source=source, rounds=_rounds(step))
    return Place("own")


def keeps_grid(step: Step) -> bool:
    """Whether a step's output must have the grid of its input."""
    is_known = is_of_keras(step.layer) and type(step.layer).__name__ in _KEEPS_GRID
    return is_known or activation_name(step.layer) == "linear"


def _rounds(step: Step) -> bool:
    kind = type(step.layer).__name__
    smooth = getattr(step.layer, "interpolation", "nearest") != "nearest"
    return kind.startswith("AveragePooling") or smooth


def _is_relu_of_a_pool(step: Step, makers: Mapping[int, Step]) -> bool:
    """Whether the converter fuses a ReLU into a pooling, which has one grid in and out."""
    maker = makers.get(id(step.inputs[0]))
    is_pool = maker is not None and type(maker.layer).__name__ in _POOLS
    return is_pool and activation_name(step.layer) in _RELUS


def _merged_tensors(graph: Graph) -> set[int]:
    """Return the ids of tensors that one merge alone reads, maybe moved on the way to it.

    They are rounded once, to the grid of the whole.
    """
    users = graph.users()
    merged: set[int] = set()
    for step in reversed(graph.steps):
        moves = keeps_grid(step) and any(id(tensor) in merged for tensor in step.outputs)
        if moves or merges(step):
            merged |= {id(t) for t in step.inputs if len(users[id(t)]) == 1}
    return merged


def merges(step: Step) -> bool:
    """Whether a step's inputs and output must all have one grid."""
    return is_of_keras(step.layer) and type(step.layer).__name__ in _MERGES


def _hidden_tensors(graph: Graph) -> set[int]:
    """Return the ids of tensors that folding or fusing takes away."""
    plan, users = FoldPlan(graph, trains=True), graph.users()
    hidden = {id(step.outputs[0]) for step in plan.before.values()}
    for step in graph.steps:
        chain = [step, *plan.after.get(step, ())]
        hidden |= {id(one.outputs[0]) for one in chain[:-1]}
        last = chain[-1].outputs[0]
        if takes_relu(step) and is_fused_relu(users.get(id(last), [])):
            hidden.add(id(last))
    return hidden


def _final_tensors(graph: Graph) -> set[int]:
    """Return the ids of the answers, and of what only passes an activation on the way to them."""
    final = {id(tensor) for tensor in graph.outputs}
    for step in reversed(graph.steps):
        passes = keeps_grid(step) or activation_name(step.layer) is not None
        if passes and any(id(tensor) in final for tensor in step.outputs):
            final |= {id(tensor) for tensor in step.inputs}
    return final


def _is_float(tensor: Any) -> bool:
    return np.dtype(str(tensor.dtype)).kind == "f"
