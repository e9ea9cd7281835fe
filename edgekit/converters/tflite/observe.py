"""The activations of a float .tflite, read through LiteRT and XNNPACK.

What kernels fuse (a ReLU behind a convolution) is one operator already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.observe import Samples
from edgekit.converters.sources.tflite import open_interpreter
from edgekit.converters.tflite.flatbuffer import kinds_of, pack, schema, size_of, unpack
from edgekit.converters.tflite.operators import OPERATORS
from edgekit.runtime.backends import default_threads


class TfliteProbe:
    """See `edgekit.converters.observe.Probe`; tensors are known by their index.

    Args:
        content: a float .tflite of one subgraph.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._model = unpack(content)

    @cached_property
    def observed(self) -> list[int]:
        """Return the tensors that need a range: real inputs and outputs of operators."""
        graph = self._model.subgraphs[0]
        found = [int(index) for index in graph.inputs]
        for operator, kind in zip(graph.operators, kinds_of(self._model), strict=True):
            rule = OPERATORS.get(kind)
            data = [index for index in operator.inputs if index >= 0 and _is_real(graph, index)]
            if rule is None or rule.output == "own" or (rule.output == "input" and len(data) > 1):
                found += [int(index) for index in operator.outputs]
        return [index for index in found if _is_real(graph, index)]

    @property
    def never_clipped(self) -> set[int]:
        """Return the model's outputs, what goes into a softmax, and what alone decides on either.

        That is what becomes one by an operator that has no range of its own.
        """
        kinds, graph = kinds_of(self._model), self._model.subgraphs[0]
        kept = {int(index) for index in graph.outputs}
        for operator, kind in zip(reversed(graph.operators), reversed(kinds), strict=True):
            rule = OPERATORS.get(kind)
            follows = rule is not None and rule.output != "own"
            if kind in ("SOFTMAX", "LOG_SOFTMAX", "ARG_MAX") or (
                follows and any(int(index) in kept for index in operator.outputs)
            ):
                kept |= {int(index) for index in operator.inputs}
        return kept

    def name(self, key: int) -> str:
        """Return a tensor's name."""
        return str(self._model.subgraphs[0].tensors[key].name.decode())

    def size(self, key: int) -> int:
        """Return how many values a tensor has."""
        return size_of(self._model.subgraphs[0].tensors[key])

    def run(self, keys: Sequence[int], samples: Samples) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the values of some tensors for each sample; they hold until the next one."""
        model = unpack(self._content)
        model.subgraphs[0].outputs = np.array(keys, np.int32)
        model.signatureDefs = None
        interpreter = open_interpreter(
            pack(model), "the model for calibration", num_threads=default_threads()
        )
        inputs = [detail["index"] for detail in interpreter.get_input_details()]
        for sample in samples():
            interpreter.reset_all_variables()
            for index, array in zip(inputs, sample, strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            # Views cost no copy, but none may be alive when the interpreter runs again.
            views = [interpreter.tensor(index)() for index in keys]
            yield views
            views.clear()


def _is_real(graph: Any, index: int) -> bool:
    return bool(graph.tensors[index].type == schema().TensorType.FLOAT32)
