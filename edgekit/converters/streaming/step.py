"""Keras model over a sequence -> the graph of one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.converters.quantize.graph import Graph, Step, Unsupported, flatten
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.converters.streaming.cells import Builder, State
from edgekit.converters.streaming.rules import Flow, next_of
from edgekit.errors import ModelError, require


@dataclass(frozen=True)
class OneStep:
    """A model of one step.

    Attributes:
        model: a Keras model from inputs [1, …] and states to outputs [1, …] and next states.
        states: in the order in which they come behind the inputs and behind the outputs.
        every_step: whether the model over the sequence gives an output for each step, or for the
            last one only.
        wide: names of layers that compute with more than 8 bits in an int8 model.
    """

    model: Any
    states: tuple[State, ...]
    every_step: bool
    wide: tuple[str, ...]


def one_step(source: FrozenGraph) -> OneStep:
    """Return a Keras model over a sequence as a model of one step of it.

    Args:
        source: of a Keras 3 model whose inputs are [1, steps, …].

    Raises:
        ModelError: a layer that needs more than the past, or that is not known to do without.
    """
    keras: Any = require("keras", "convert")
    if source.model is None:
        raise ModelError(
            f"streaming is compiled from a model that Keras 3 loads, not from {source.kind}; save "
            "it as .keras"
        )
    steps = _steps(source)
    try:
        whole, _ = flatten(source.model, source.inputs)
    except Unsupported as error:
        raise ModelError(f"this model cannot become a stream: {error}") from error
    inputs = [
        keras.Input(batch_shape=(None, *spec.shape[2:]), dtype=spec.dtype, name=spec.name)
        for spec in source.inputs
    ]
    build = Builder(Graph(list(inputs)))
    flows = {id(old): Flow(new, steps) for old, new in zip(whole.inputs, inputs, strict=True)}
    for step in whole.steps:
        _take(build, step, flows)
    return _finished(build, [flows[id(tensor)] for tensor in whole.outputs])


def _steps(source: FrozenGraph) -> int:
    """Return how many steps the sequence has."""
    for spec in source.inputs:
        if len(spec.shape) < 3:
            raise ModelError(
                f"streaming needs inputs of [steps, features]; the model's input {spec.name!r} is "
                f"{list(spec.shape[1:])}"
            )
    lengths = {spec.shape[1] for spec in source.inputs}
    if len(lengths) > 1:
        raise ModelError(
            f"streaming needs inputs of as many steps each; the model's have "
            f"{', '.join(map(str, sorted(lengths)))}"
        )
    return lengths.pop()


def _take(build: Builder, step: Step, flows: dict[int, Flow]) -> None:
    given = [flows[id(tensor)] for tensor in step.inputs]
    made = next_of(build, step, given)
    if len(step.outputs) != 1:
        raise ModelError(
            f"layer {step.layer.name!r} gives {len(step.outputs)} results, of which a stream can "
            "carry on one; build it with return_state=False"
        )
    flows[id(step.outputs[0])] = made


def _finished(build: Builder, outputs: list[Flow]) -> OneStep:
    keras: Any = require("keras", "convert")
    if not build.states:
        raise ModelError(
            "this model keeps nothing from step to step, so there is no state to stream: convert "
            "it without streaming"
        )
    kinds = {flow.steps is not None for flow in outputs}
    if len(kinds) > 1:
        raise ModelError(
            "some outputs of this model are for each step, others for the last one; a stream needs "
            "them alike: split the model in two"
        )
    left = [state.left for state in build.states]
    model = keras.Model(build.graph.inputs, [*(flow.tensor for flow in outputs), *left])
    return OneStep(model, tuple(build.states), kinds.pop(), tuple(build.wide))
