"""A TensorFlow function, frozen: weights are constants, batch is 1, all dimensions are fixed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.feedback import Feedback
from edgekit.errors import ModelError, require
from edgekit.specs import TensorSpec

_LOOPS = {"While", "StatelessWhile"}


@dataclass(frozen=True)
class FrozenGraph:
    """One concrete function of TensorFlow as a source model.

    Attributes:
        kind: which kind of model it came from.
        concrete: the frozen concrete function; what the converter takes.
        inputs: batch 1, all dimensions fixed.
        outputs: likewise.
        model: the Keras 3 model that it came from; None for other kinds.
        owner: the `tf.Module` of a function that is converted by way of a SavedModel.
        feedback: the states among its inputs and outputs, if it is of one step of a sequence.
    """

    kind: str
    concrete: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model: Any = None
    owner: Any = None
    feedback: Feedback | None = None

    @property
    def has_loops(self) -> bool:
        """Whether it runs a loop, as recurrent layers do that are not unrolled."""
        definition = self.concrete.graph.as_graph_def()
        nodes = [*definition.node]
        for function in definition.library.function:
            nodes += function.node_def
        return any(node.op in _LOOPS for node in nodes)

    def predict(self, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs for one sample; see `SourceModel.predict`."""
        return _run(self.concrete, checked_inputs(self.inputs, inputs))


def freeze(
    kind: str,
    function: Callable[..., Sequence[Any]],
    inputs: tuple[TensorSpec, ...],
    output_names: Sequence[str],
    model: Any = None,
) -> FrozenGraph:
    """Trace `function` on `inputs` and turn its variables into constants.

    Args:
        kind: what to call the source.
        function: takes one tensor an input, returns one tensor an output.
        inputs: what to trace it with.
        output_names: in the order of its results.
        model: the Keras 3 model behind it, if any.

    Raises:
        ModelError: TensorFlow cannot trace or freeze it.
    """
    tf: Any = require("tensorflow", "convert")
    constants: Any = require("tensorflow.python.framework.convert_to_constants", "convert")
    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=graph_name(spec.name)) for spec in inputs
    ]

    def call(*tensors: Any) -> Any:
        return [
            tf.identity(tensor, name=graph_name(name))
            for tensor, name in zip(function(*tensors), output_names, strict=True)
        ]

    try:
        # Autograph would rewrite the model's own Python; it is wanted as the model runs it.
        traced = tf.function(call, input_signature=signature, autograph=False)
        concrete = traced.get_concrete_function()
        if concrete.captured_inputs:
            concrete = constants.convert_variables_to_constants_v2(
                concrete, lower_control_flow=False
            )
        return FrozenGraph(
            kind, concrete, inputs, _output_specs(concrete, inputs, output_names), model
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"TensorFlow cannot trace the model at batch 1 with inputs "
            f"{', '.join(f'{s.name} {s.shape}' for s in inputs)}: {one_line(error)}"
        ) from error


def fixed_inputs(
    specs: Sequence[tuple[str, tuple[int | None, ...] | None, str]],
    input_shape: tuple[int, ...] | None,
    where: str,
) -> tuple[TensorSpec, ...]:
    """Return the inputs with batch 1 and every dimension fixed.

    Args:
        specs: (name, shape or None if not even its rank is known, dtype) of each input.
        input_shape: what the caller fixes, batch first.
        where: the model, for messages.

    Raises:
        ModelError: a dimension stays open, or `input_shape` contradicts the model.
    """
    if not specs:
        raise ModelError(f"{where} takes no inputs; a model with at least one is needed")
    if input_shape is not None and len(specs) > 1:
        raise ModelError(
            f"{where} has {len(specs)} inputs ({', '.join(name for name, *_ in specs)}); "
            f"--input-shape works for one; save the model with fixed input shapes"
        )
    return tuple(
        TensorSpec(name=name, shape=_fixed_shape(name, shape, input_shape, where), dtype=dtype)
        for name, shape, dtype in specs
    )


def _fixed_shape(
    name: str,
    shape: tuple[int | None, ...] | None,
    wanted: tuple[int, ...] | None,
    where: str,
) -> tuple[int, ...]:
    given = "?" if shape is None else "x".join("?" if d is None else str(d) for d in shape)
    if wanted is not None:
        fits = shape is None or (
            len(shape) == len(wanted)
            and all(d in (None, w) for d, w in zip(shape, wanted, strict=True))
        )
        if not fits or not wanted or min(wanted) < 1 or wanted[0] != 1:
            raise ModelError(
                f"--input-shape {'x'.join(map(str, wanted))} contradicts {where}: its input "
                f"{name} is {given}; batch must be 1 and fixed dimensions must stay as they are"
            )
        return wanted
    batch_one = None if shape is None else (1, *shape[1:])
    if shape and shape[0] not in (None, 1):
        raise ModelError(
            f"{where}: its input {name} is {given}, and EdgeKit needs batch 1; save the model with "
            f"batch 1, or with an open batch"
        )
    if batch_one is None or None in batch_one:
        raise ModelError(
            f"{where}: its input {name} is {given}, and EdgeKit needs batch 1 and fixed "
            f"dimensions; say them with --input-shape, for example --input-shape 1x224x224x3"
        )
    return tuple(d for d in batch_one if d is not None)


def checked_inputs(
    specs: Sequence[TensorSpec], inputs: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    """Return `inputs` in the dtypes of `specs`.

    Raises:
        ModelError: their number or a shape is another.
    """
    if len(inputs) != len(specs):
        raise ModelError(f"the model takes {len(specs)} inputs; got {len(inputs)}")
    for spec, array in zip(specs, inputs, strict=True):
        if np.shape(array) != spec.shape:
            raise ModelError(
                f"input {spec.name} must have shape {spec.shape}; got {np.shape(array)}"
            )
    return [np.asarray(array, spec.dtype) for spec, array in zip(specs, inputs, strict=True)]


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """Return the first line of an exception that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def graph_name(name: str) -> str:
    """Return `name` with what TensorFlow does not allow in names replaced."""
    name = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"t{name}"


def _run(concrete: Any, arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    tf: Any = require("tensorflow", "convert")
    return tuple(np.asarray(tensor) for tensor in concrete(*map(tf.constant, arrays)))


def _output_specs(
    concrete: Any, inputs: Sequence[TensorSpec], names: Sequence[str]
) -> tuple[TensorSpec, ...]:
    tensors = concrete.outputs
    if all(tensor.shape.is_fully_defined() for tensor in tensors):
        shapes = [tuple(tensor.shape.as_list()) for tensor in tensors]
    else:
        # Shapes that are computed inside the graph show themselves only when it runs.
        zeros = [np.zeros(spec.shape, spec.dtype) for spec in inputs]
        shapes = [array.shape for array in _run(concrete, zeros)]
    return tuple(
        TensorSpec(name=name, shape=shape, dtype=tensor.dtype.name)
        for name, shape, tensor in zip(names, shapes, tensors, strict=True)
    )
