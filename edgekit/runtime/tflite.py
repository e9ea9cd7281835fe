"""Read what a .tflite file holds without executing it.

The file is a FlatBuffer of the schema
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
whose generated Python classes trust every offset in it, as does the native interpreter. So the
tables are read by a reader of our own that checks each access, and every index that one table
holds into another is checked too: a damaged file is an error here instead of a crash there.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import msgspec

from edgekit.errors import ModelError, require
from edgekit.runtime.flatbuffer import DamagedBuffer, Table, root_table
from edgekit.specs import TensorSpec

_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_NUMBER_BYTES = 8
BITS = {
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    **dict.fromkeys(("int8", "uint8", "bool"), 8),
    "int4": 4,
    "int2": 2,
}
"""Size of an element by dtype; of types that are not here it depends on the content."""


class TensorDetail(msgspec.Struct, frozen=True):
    """One tensor of a subgraph: input, output, weight or activation.

    Attributes:
        name: as in the file.
        shape: as stored; an open dimension is stored as 1.
        dtype: a numpy name, or ``int4``, ``int2``, ``bfloat16``, ``string``, ``resource`` …
        scales: quantization steps: none, one for the tensor, or one a channel.
        zero_points: as many as `scales`.
        channel_axis: the dimension that `scales` go along, where there are several.
        constant_bytes: size of the stored content; 0: computed when the model runs.
        value: of a constant that is one whole number.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    channel_axis: int = 0
    constant_bytes: int = 0
    value: int | None = None

    @property
    def is_per_channel(self) -> bool:
        """Whether each channel has a scale of its own."""
        return len(self.scales) > 1

    @property
    def spec(self) -> TensorSpec:
        """The same as a model's input or output."""
        quantized = len(self.scales) == 1
        return TensorSpec(
            name=self.name,
            shape=self.shape,
            dtype=self.dtype,
            scale=self.scales[0] if quantized else None,
            zero_point=self.zero_points[0] if quantized else None,
        )


class OperatorSpec(msgspec.Struct, frozen=True):
    """One operator.

    Attributes:
        name: builtin's name (``CONV_2D``), or a custom operator's own (``FlexErf``).
        inputs: its tensors; None where an optional one is left out.
        outputs: the tensors it computes.
        subgraph: index of the subgraph it stands in; 0 is the model's main one.
        is_custom: whether it is no builtin of LiteRT.
        loop: of WHILE, the subgraphs of its condition and its body.
    """

    name: str
    inputs: tuple[TensorDetail | None, ...]
    outputs: tuple[TensorDetail, ...]
    subgraph: int
    is_custom: bool
    loop: tuple[int, int] | None = None


class TfliteDescription(msgspec.Struct, frozen=True):
    """What a .tflite file holds.

    Attributes:
        inputs: of the main subgraph, in order.
        outputs: of the main subgraph, in order.
        operators: of all subgraphs, in order of execution within each.
        tensors: of all subgraphs.
        subgraphs: how many there are; loops and branches add some.
        size_bytes: length of the file.
        arguments: inputs of each subgraph, in order.
        results: outputs of each subgraph, in order.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[OperatorSpec, ...]
    tensors: tuple[TensorDetail, ...]
    subgraphs: int
    size_bytes: int
    arguments: tuple[tuple[TensorDetail, ...], ...]
    results: tuple[tuple[TensorDetail, ...], ...]


def describe_tflite(content: bytes | memoryview, name: str) -> TfliteDescription:
    """Return what the .tflite file `content` holds.

    Args:
        content: the whole file.
        name: what to call it in messages, e.g. its path.

    Raises:
        ModelError: it is no .tflite file, it is damaged, or its schema is of another version.
        MissingPackage: ai-edge-litert, which brings the names of operators and types, is absent.

    >>> describe_tflite(Path("model.tflite").read_bytes(), "model.tflite").inputs[0].shape
    (1, 224, 224, 3)
    """
    view = memoryview(content).cast("B")
    if len(view) < 8 or bytes(view[4:8]) != _IDENTIFIER:
        raise ModelError(
            f"{name} is not a .tflite file: {len(view)} bytes without the mark "
            f"{_IDENTIFIER.decode()} at byte 4; it may be empty, truncated or of another format"
        )
    try:
        return _describe(root_table(view), view)
    except DamagedBuffer as error:
        raise ModelError(
            f"{name} is a damaged .tflite file ({error}); copy or convert it again"
        ) from error


def _describe(model: Table, view: memoryview) -> TfliteDescription:
    version = model.scalar(0, "I", 0)
    if version != _SCHEMA_VERSION:
        raise DamagedBuffer(f"schema version {version}, only {_SCHEMA_VERSION} is known")
    codes = [_operator_code(code) for code in model.tables(1)]
    buffers = [_buffer(buffer, len(view)) for buffer in model.tables(4)]
    graphs = model.tables(2)
    if not graphs:
        raise DamagedBuffer("no subgraph")
    operators: list[OperatorSpec] = []
    tensors: list[TensorDetail] = []
    by_graph: list[list[TensorDetail]] = []
    for index, graph in enumerate(graphs):
        own = [_tensor(tensor, buffers) for tensor in graph.tables(0)]
        by_graph.append(own)
        tensors += own
        operators += [_operator(entry, codes, own, index, len(graphs)) for entry in graph.tables(3)]
    ends = [
        [tuple(_pick(own, graph.integers(slot, "i"))) for slot in (1, 2)]
        for graph, own in zip(graphs, by_graph, strict=True)
    ]
    _check_signatures(model, by_graph)
    return TfliteDescription(
        inputs=tuple(tensor.spec for tensor in ends[0][0]),
        outputs=tuple(tensor.spec for tensor in ends[0][1]),
        operators=tuple(operators),
        tensors=tuple(tensors),
        subgraphs=len(graphs),
        size_bytes=len(view),
        arguments=tuple(given for given, _ in ends),
        results=tuple(made for _, made in ends),
    )


def _check_signatures(model: Table, tensors: list[list[TensorDetail]]) -> None:
    """Check the signatures and metadata, which the interpreter reads while it opens a file."""
    for signature in model.tables(7):
        signature.text(2)
        subgraph = signature.scalar(4, "I", 0)
        if subgraph >= len(tensors):
            raise DamagedBuffer("a signature of a subgraph that is not there")
        for slot in (0, 1):
            for argument in signature.tables(slot):
                argument.text(0)
                _pick(tensors[subgraph], [argument.scalar(1, "I", 0)])
    for metadata in model.tables(6):
        metadata.text(0)


def _operator_code(code: Table) -> tuple[str, bool]:
    # Codes up to 127 are in the old one-byte field, later ones in the field that replaced it.
    number = max(code.scalar(0, "b", 0), code.scalar(3, "i", 0))
    names = _enumeration("BuiltinOperator")
    if number not in names:
        raise DamagedBuffer(f"operator code {number} is not known")
    if names[number] == "CUSTOM":
        return code.text(1) or "CUSTOM", True
    return names[number], False


def _buffer(buffer: Table, size_bytes: int) -> tuple[int, bytes]:
    """Return the size of a constant's content, and the content if it is a number or two."""
    start, length = buffer.scalar(1, "Q", 0), buffer.scalar(2, "Q", 0)
    if (
        start > 1
    ):  # content of large models stands behind the FlatBuffer; 0 and 1 say that it does not
        if start + length > size_bytes:
            raise DamagedBuffer("a buffer that ends behind the file")
        return length, b""
    length = buffer.vector_length(0, 1)
    return length, bytes(buffer.integers(0, "B")) if length <= _NUMBER_BYTES else b""


def _tensor(table: Table, buffers: list[tuple[int, bytes]]) -> TensorDetail:
    shape = tuple(table.integers(0, "i"))
    types = _enumeration("TensorType")
    code, buffer = table.scalar(1, "b", 0), table.scalar(2, "I", 0)
    if code not in types or min(shape, default=0) < 0 or buffer >= max(1, len(buffers)):
        raise DamagedBuffer("a tensor of unknown type, negative size or missing buffer")
    dtype = types[code].lower()
    stored, content = buffers[buffer] if buffers else (0, b"")
    needed = (math.prod(shape) * BITS.get(dtype, 0) + 7) // 8
    if stored and dtype in BITS and table.position(6) is None and stored != needed:
        raise DamagedBuffer(f"a tensor of {needed} bytes with {stored} stored")
    is_number = dtype in ("int32", "int64") and math.prod(shape) == 1 and content
    value = int.from_bytes(content, "little", signed=True) if is_number else None
    detail = TensorDetail(table.text(3), shape, dtype, constant_bytes=stored, value=value)
    quantization = table.table(4)
    return detail if quantization is None else _quantized(detail, quantization)


def _quantized(detail: TensorDetail, quantization: Table) -> TensorDetail:
    scales = tuple(quantization.numbers(2, "f"))
    points = tuple(quantization.integers(3, "q")) or (0,) * len(scales)
    axis = quantization.scalar(6, "i", 0)
    if not all(math.isfinite(scale) for scale in scales):
        raise DamagedBuffer("a quantization step that is not a finite number")
    if len(scales) > 1:
        if not 0 <= axis < len(detail.shape) or detail.shape[axis] != len(scales):
            raise DamagedBuffer(f"{len(scales)} quantization steps for shape {detail.shape}")
        points = points * len(scales) if len(points) == 1 else points
    if len(points) != len(scales):
        raise DamagedBuffer(f"{len(scales)} quantization steps and {len(points)} zero points")
    return msgspec.structs.replace(detail, scales=scales, zero_points=points, channel_axis=axis)


def _operator(
    table: Table,
    codes: list[tuple[str, bool]],
    tensors: list[TensorDetail],
    subgraph: int,
    subgraphs: int,
) -> OperatorSpec:
    code = table.scalar(0, "I", 0)
    if code >= len(codes):
        raise DamagedBuffer("an operator without a code")
    options, _ = (table.table(slot) for slot in (4, 12))
    table.vector_length(5, 1)
    _pick(tensors, [index for index in table.integers(8, "i") if index != -1])
    inputs = [
        None if index == -1 else _pick(tensors, [index])[0] for index in table.integers(1, "i")
    ]
    outputs = _pick(tensors, table.integers(2, "i"))
    name, is_custom = codes[code]
    loop = None
    if name == "WHILE" and options is not None:
        loop = options.scalar(0, "i", 0), options.scalar(1, "i", 0)
        if not all(0 <= index < subgraphs for index in loop):
            raise DamagedBuffer("a loop of subgraphs that are not there")
    return OperatorSpec(name, tuple(inputs), tuple(outputs), subgraph, is_custom, loop)


def _pick(tensors: list[TensorDetail], indices: list[int]) -> list[TensorDetail]:
    if any(not 0 <= index < len(tensors) for index in indices):
        raise DamagedBuffer("a reference to a tensor that is not there")
    return [tensors[index] for index in indices]


@cache
def _enumeration(name: str) -> dict[int, str]:
    """Return number -> name of one enumeration of the schema."""
    schema: Any = require("ai_edge_litert.schema_py_generated", "cpu")
    return {
        number: word
        for word, number in vars(getattr(schema, name)).items()
        if isinstance(number, int)
    }
