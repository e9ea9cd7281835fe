"""A .tflite file whose activations can be read: who computes them, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, ModelError, require
from edgekit.runtime.tflite import OperatorSpec, describe_tflite


class Graph:
    """A .tflite's main subgraph.

    Attributes:
        what: its name in messages.
        tensors: by index.
        producers: the operator that computes each tensor, in order of execution.

    Raises:
        ModelError: it is no .tflite file.
    """

    def __init__(self, content: bytes, what: str) -> None:
        self.what = what
        description = describe_tflite(content, what)
        self.tensors = description.tensors  # those of the main subgraph come first
        # Operators refer to the very objects in `tensors`: names need not be unique.
        self._index_of = {id(tensor): index for index, tensor in enumerate(self.tensors)}
        self.producers: dict[int, OperatorSpec] = {
            self._index_of[id(tensor)]: operator
            for operator in description.operators
            if operator.subgraph == 0
            for tensor in operator.outputs
        }

    def operator(self, index: int) -> str:
        """Return the name of the operator that computes tensor `index`."""
        return self.producers[index].name if index in self.producers else "INPUT"

    def operands(self, index: int) -> list[int]:
        """Return the tensors that tensor `index` is computed from; none for an input."""
        operator = self.producers.get(index)
        found = operator.inputs if operator else ()
        return [self._index_of[id(tensor)] for tensor in found if tensor is not None]


class Activations(Graph):
    """A .tflite's main subgraph that runs, with all its tensors to be read after each run.

    Attributes:
        inputs: specs of the inputs.
        input_indices: their tensors.
        output_indices: those of the outputs.

    Raises:
        ModelError: LiteRT cannot prepare it.
    """

    def __init__(self, content: bytes, what: str) -> None:
        super().__init__(content, what)
        litert: Any = require("ai_edge_litert.interpreter", "cpu")
        # Without delegates: what XNNPACK fuses away would not be seen.
        resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            self._interpreter = litert.Interpreter(
                model_content=content,
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=resolver,
            )
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise ModelError(f"LiteRT cannot prepare {what} to be compared: {said}") from error
        self.input_indices = [d["index"] for d in self._interpreter.get_input_details()]
        self.output_indices = [d["index"] for d in self._interpreter.get_output_details()]
        self.inputs = [self.tensors[index].spec for index in self.input_indices]

    def run(self, sample: Sequence[NDArray[Any]], number: int) -> None:
        """Compute all tensors for one sample, the `number`-th: an array for each input.

        Raises:
            DataError: arrays of other shapes than the inputs.
        """
        # Fused recurrent layers keep their state from one call to the next; samples are apart.
        self._interpreter.reset_all_variables()
        if [a.shape for a in sample] != [spec.shape for spec in self.inputs]:
            raise DataError(
                f"sample {number} to compare layers on has shapes {[a.shape for a in sample]}; "
                f"{self.what} takes {[spec.shape for spec in self.inputs]}"
            )
        for index, array in zip(self.input_indices, sample, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()

    def values(self, index: int) -> NDArray[Any]:
        """Return what tensor `index` holds, a copy."""
        found: NDArray[Any] = self._interpreter.get_tensor(index)
        return found

    def real(self, index: int) -> NDArray[np.float32]:
        """Return the real values of a quantized weight, which may have a scale a channel."""
        tensor = self.tensors[index]
        shape = [1] * len(tensor.shape)
        if tensor.is_per_channel:
            shape[tensor.channel_axis] = -1
        points = np.array(tensor.zero_points, np.float32).reshape(shape)
        scales = np.array(tensor.scales, np.float32).reshape(shape)
        return np.asarray((self.values(index).astype(np.float32) - points) * scales, np.float32)
