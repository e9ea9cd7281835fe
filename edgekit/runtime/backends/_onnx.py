"""Check an .onnx file before an engine opens it, without the package `onnx`.

The file is a protobuf message, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Engines
follow what it says about other files, and guess the format of what is no .onnx file at all. So the
message is walked here first: every length is checked, and what leads out of the file is refused.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgekit.errors import ModelError
from edgekit.runtime.protobuf import DamagedMessage, fields
from edgekit.specs import TensorSpec

# Message kind -> number of a field -> kind of the message in it: the ways to a tensor or operator.
MESSAGES = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
_GRAPH, _OPERATOR, _TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 7, 4, 2, 8, 13, 14
_FLOAT16 = 10
# Bounds the work for a hostile file, to about 4 s; large networks have some ten thousand fields.
_FIELD_LIMIT = 5_000_000
_DEPTH_LIMIT = 100  # protobuf's own


class OnnxSummary(msgspec.Struct, frozen=True):
    """What an .onnx file asks of an engine.

    Attributes:
        operators: names of all operators, of subgraphs and functions too.
        has_float16: whether a weight or constant is float16.
    """

    operators: frozenset[str]
    has_float16: bool


def check_onnx(path: Path) -> OnnxSummary:
    """Return what the file at `path` asks for, or refuse it.

    Raises:
        ModelError: missing, no .onnx file, damaged, or one that leads to other files.
    """
    try:
        with path.open("rb") as file, _mapped(file.fileno()) as content:
            return _summary(content, path)
    except OSError as error:
        raise ModelError(f"cannot read model {path}: {error.strerror}") from error
    except DamagedMessage as error:
        raise ModelError(
            f"{path} is no .onnx file, or a damaged one ({error}); copy or convert it again"
        ) from error


def onnx_spec(name: str, shape: Sequence[Any], dtype: str, path: Path) -> TensorSpec:
    """Return the spec of an input or output; ONNX keeps no scale for those.

    Args:
        name: as in the file.
        shape: a whole number for each dimension, anything else for an open one.
        dtype: a numpy name.
        path: of the file, for messages.

    Raises:
        ModelError: open dimensions.
    """
    if not all(isinstance(length, int) and length > 0 for length in shape):
        raise ModelError(
            f"{path}: {name!r} has open dimensions, {list(shape)}; a bundle's shapes are fixed: "
            "convert the model again with --input-shape"
        )
    return TensorSpec(name=name, shape=tuple(shape), dtype=dtype)


def _mapped(file_number: int) -> mmap.mmap:
    try:
        return mmap.mmap(file_number, 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DamagedMessage("it is empty") from error


def _summary(content: mmap.mmap, path: Path) -> OnnxSummary:
    operators: set[str] = set()
    has_graph = has_float16 = False
    budget = _FIELD_LIMIT
    open_messages = [("ModelProto", 0, len(content), 1)]
    while open_messages:
        kind, start, end, depth = open_messages.pop()
        found: dict[int, tuple[int, int]] = {}
        for number, begin, stop in fields(content, start, end):
            found[number] = begin, stop
            inner = MESSAGES[kind].get(number)
            if inner is not None:
                open_messages.append((inner, begin, stop, depth + 1))
            budget -= 1
            if depth > _DEPTH_LIMIT or budget < 0:
                raise DamagedMessage("too deep or too many fields")
        has_graph |= kind == "ModelProto" and _GRAPH in found
        if kind == "NodeProto" and _OPERATOR in found:
            operators.add(_text(content, found[_OPERATOR]))
        if kind == "TensorProto":
            has_float16 |= found.get(_TYPE, (0, 0))[0] == _FLOAT16
            _refuse_external(content, found, path)
    if not has_graph:
        raise DamagedMessage("it holds no graph")
    if "EPContext" in operators:
        raise ModelError(
            f"{path} holds an engine compiled elsewhere (operator EPContext), which could execute "
            "anything; give the .onnx file that it was compiled from"
        )
    return OnnxSummary(frozenset(operators), has_float16)


def _refuse_external(content: mmap.mmap, found: dict[int, tuple[int, int]], path: Path) -> None:
    if _EXTERNAL_DATA in found or found.get(_DATA_LOCATION, (0, 0))[0] != 0:
        name = _text(content, found[_NAME]) if _NAME in found else ""
        raise ModelError(
            f"{path}: the tensor {name[:80]!r} is stored in another file, which is not read; a "
            "bundle's model is one file: save it with its weights inside"
        )


def _text(content: mmap.mmap, place: tuple[int, int]) -> str:
    begin, stop = place
    return content[begin : min(stop, begin + 200)].decode("utf-8", "replace")
