"""An ONNX graph as the rules see it: who makes and reads a tensor, its type, shape and values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.onnx.read import external_file, stored_at
from edgekit.errors import ModelError, require

if TYPE_CHECKING:
    import onnx


def names(text: str) -> frozenset[str]:
    """Return the words of `text`."""
    return frozenset(text.split())


MOVES = names(
    "Transpose Reshape Flatten Slice Pad Squeeze Unsqueeze Identity Split Gather Tile Expand "
    "Dropout DepthToSpace SpaceToDepth MaxPool"
)
"""Operators that hand on values of their first input as they are: a DequantizeLinear before one is
as good as one behind it (each was confirmed in the layers of a built engine)."""

WEIGHTED = names("Conv ConvTranspose Gemm MatMul")
"""Operators that have int8 kernels because most of the work is in them."""


class Scope:
    """One graph: the model's, a branch's, a loop body's or a function's.

    Attributes:
        graph: it, as stored.
        nodes: its nodes, in the order of the file.
        opset: of the standard domain; 0 where the model states none.
        inputs, outputs: names of the graph's inputs and outputs.
        model: what it is part of.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        model: onnx.ModelProto,
        folder: Path | None,
        outer: Scope | None = None,
    ) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.outputs = {output.name for output in graph.output}
        self.inputs = {value.name for value in graph.input}
        self.model = model
        self.opset = max((o.version for o in model.opset_import if not o.domain), default=0)
        self._onnx = require("onnx", "lint")
        self._folder = folder
        self._outer = outer
        self._initializers: dict[str, onnx.TensorProto] = {
            tensor.name: tensor for tensor in graph.initializer
        }
        self._values = {
            value.name: value for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)
        self.inner = [
            Scope(body, model, folder, self) for node in self.nodes for body in _bodies(node)
        ]

    def tensors(self) -> Iterator[tuple[str, onnx.TensorProto]]:
        """Yield name and tensor of all that is stored in this graph, inner ones left out."""
        yield from self._initializers.items()
        for node in self.nodes:
            if node.op_type == "Constant" and node.output:
                tensor = self._tensor(node.output[0])
                if tensor is not None:
                    yield node.output[0], tensor

    def walk(self) -> Iterator[Scope]:
        """Yield this graph and all that lie in it."""
        yield self
        for scope in self.inner:
            yield from scope.walk()

    def knows(self, name: str) -> bool:
        """Whether tensor `name` is made, stored or given, here or around here."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._producers or name in scope._initializers or name in scope.inputs:
                return True
            scope = scope._outer
        return False

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes tensor `name`, or None: an input or an initializer."""
        scope = self._holding(name)
        return scope._producers.get(name) if scope else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that take tensor `name`, those of inner graphs too."""
        return [node for scope in self.walk() for node in scope._readers.get(name, ())]

    def dtype(self, name: str) -> str | None:
        """Return the ONNX name of the element type, such as ``FLOAT``; None: not known."""
        scope = self._holding(name)
        return type_name(scope._element_type(name)) if scope else None

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return the shape, None for an open dimension; None: the rank is not known."""
        scope = self._holding(name)
        if scope is None:
            return None
        if (tensor := scope._tensor(name)) is not None:
            return tuple(tensor.dims)
        value = scope._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        dims = value.type.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)

    def is_constant(self, name: str) -> bool:
        """Whether tensor `name` is stored in the file, seen through Q, DQ and what moves values."""
        through = MOVES | {"QuantizeLinear", "DequantizeLinear", "Cast"}
        return all(self._stored(end) for end in self.ends(name, through))

    def ends(self, name: str, through: frozenset[str] | set[str] = MOVES) -> list[str]:
        """Return the tensors that `name` takes its values from, seen through operators `through`.

        A Concat gives the ends of all its inputs.
        """
        found: list[str] = []
        seen: set[str] = set()
        left = [name]
        while left:
            name = left.pop()
            if name in seen:
                continue
            seen.add(name)
            node = self.producer(name)
            if node is not None and node.op_type == "Concat":
                left += node.input
            elif node is not None and node.op_type in through and node.input:
                left.append(node.input[0])
            else:
                found.append(name)
        return found

    def is_quantized(self, name: str) -> bool:
        """Whether all values of tensor `name` come out of DequantizeLinear."""
        return all(self._is_made_by(end, "DequantizeLinear") for end in self.ends(name))

    def values(self, name: str) -> NDArray[Any] | None:
        """Return the values of a stored tensor, or None: it is computed, or lies outside.

        Raises:
            ModelError: the file does not hold what the tensor's type and shape say.
        """
        node = self.producer(name)
        scope = self._holding(name)
        for _ in range(len(self.nodes)):
            if node is None or node.op_type not in ("Identity", "Cast") or not node.input:
                break
            name = node.input[0]
            node, scope = self.producer(name), self._holding(name)
        tensor = scope._tensor(name) if scope else None
        if tensor is None:
            return None
        if external_file(tensor) and stored_at(tensor, self._folder) is None:
            return None
        try:
            folder = "" if self._folder is None else str(self._folder)
            values: NDArray[Any] = np.asarray(self._onnx.numpy_helper.to_array(tensor, folder))
        except Exception as error:  # onnx raises many kinds on what no exporter writes
            raise ModelError(
                f"tensor {name!r} is damaged: it has not the values of its type and shape "
                f"{list(tensor.dims)}; export the model again"
            ) from error
        return values

    def attribute(self, node: onnx.NodeProto, name: str, default: Any) -> Any:
        """Return attribute `name` of `node`, text decoded, or `default`.

        Raises:
            ModelError: it is not of the type of `default`.
        """
        found = next((part for part in node.attribute if part.name == name), None)
        if found is None:
            return default
        value = self._onnx.helper.get_attribute_value(found)
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        if isinstance(default, list):
            value = list(value) if hasattr(value, "__iter__") else value
        if not isinstance(value, type(default)):
            raise ModelError(
                f"the model is damaged: attribute {name!r} of {label(node)} is no "
                f"{type(default).__name__}; export it again"
            )
        return value

    def _is_made_by(self, name: str, operator: str) -> bool:
        node = self.producer(name)
        return node is not None and node.op_type == operator

    def _stored(self, name: str) -> bool:
        scope = self._holding(name)
        return not name or (scope is not None and scope._tensor(name) is not None)

    def _holding(self, name: str) -> Scope | None:
        """The innermost graph, from this one outwards, that knows tensor `name`."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._producers or name in scope._initializers or name in scope._values:
                return scope
            scope = scope._outer
        return None

    def _tensor(self, name: str) -> onnx.TensorProto | None:
        if name in self._initializers:
            return self._initializers[name]
        node = self._producers.get(name)
        if node is None or node.op_type != "Constant":
            return None
        for attribute in node.attribute:
            if attribute.name == "value":
                stored: onnx.TensorProto = attribute.t
                return stored
            if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
                kind = np.float32 if "float" in attribute.name else np.int64
                number = self._onnx.helper.get_attribute_value(attribute)
                tensor: onnx.TensorProto = self._onnx.numpy_helper.from_array(
                    np.asarray(number, kind)
                )
                return tensor
        return None

    def _element_type(self, name: str) -> int:
        if (tensor := self._tensor(name)) is not None:
            return int(tensor.data_type)
        value = self._values.get(name)
        return int(value.type.tensor_type.elem_type) if value is not None else 0


def label(node: onnx.NodeProto) -> str:
    """Return what to call `node`: its name, or its operator and first output."""
    return node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}"


def with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with the types and shapes that can be inferred.

    Raises:
        ModelError: a name in it is no text.
    """
    _check_text(model)
    return _inferred(model)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    inference = require("onnx.shape_inference", "lint")
    try:
        typed: onnx.ModelProto = inference.infer_shapes(model)
    except (inference.InferenceError, ValueError, RuntimeError, TypeError):
        return model  # a broken graph, or more than a protobuf's 2 GB: types stay as declared
    return typed


def _check_text(message: Any) -> None:
    """Hold that each text of a protobuf is one; damaged ones come out as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        is_single = isinstance(value, str | bytes) or hasattr(value, "ListFields")
        for part in [value] if is_single else value:
            if isinstance(part, bytes):
                raise ModelError(f"the model is damaged: {field.name} {part[:40]!r} is no text")
            if not isinstance(part, str):
                _check_text(part)


def type_name(number: int) -> str | None:
    """Return the ONNX name of element type `number`, such as ``FLOAT``; None: unknown or unset."""
    types = require("onnx", "lint").TensorProto.DataType
    return str(types.Name(number)) if number and number in types.values() else None


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
