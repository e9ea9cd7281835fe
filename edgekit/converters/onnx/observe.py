"""The activations of a float ONNX model, read through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.observe import Samples
from edgekit.converters.onnx.graph import OnnxGraph
from edgekit.converters.onnx.qdq import quantized_tensors
from edgekit.converters.sources.onnx import open_session
from edgekit.errors import require


class OnnxProbe:
    """See `edgekit.converters.observe.Probe`; tensors are known by their names.

    Args:
        model: a float `onnx.ModelProto` with fixed dimensions and inferred shapes.
    """

    def __init__(self, model: Any) -> None:
        self._graph = OnnxGraph(model)

    @cached_property
    def observed(self) -> list[str]:
        """Return the tensors that get Q/DQ, but for those that only move values of others."""
        graph, makers = self._graph, self._graph.makers
        return [
            name
            for name in quantized_tensors(graph)
            if name not in makers or not graph.hands_on(makers[name])
        ]

    @property
    def never_clipped(self) -> set[str]:
        """Return the outputs, what goes into a softmax, and what only moves values to either."""
        kept = set(self._graph.outputs)
        for node in reversed(self._graph.nodes):
            follows = self._graph.moves(node) and kept.intersection(node.output)
            if follows or node.op_type in ("Softmax", "LogSoftmax", "ArgMax"):
                kept |= set(node.input)
        return kept

    def name(self, key: str) -> str:
        """Return a tensor's name."""
        return key

    def size(self, key: str) -> int:
        """Return how many values a tensor has."""
        return self._graph.size(key)

    def run(self, keys: Sequence[str], samples: Samples) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the values of some tensors for each sample."""
        onnx: Any = require("onnx", "convert")
        graph = self._graph
        model = onnx.ModelProto.FromString(graph.model.SerializeToString())
        kept = [key for key in keys if key not in graph.inputs]
        del model.graph.output[:]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, graph.shapes[key])
            for key in kept
        )
        session = open_session(model, "the model for calibration")
        for sample in samples():
            given = dict(zip(graph.inputs, sample, strict=True))
            computed = dict(zip(kept, session.run(kept, given) if kept else (), strict=True))
            yield [given[key] if key in given else computed[key] for key in keys]
