"""Read an .onnx file, and find its external data, without opening any other file."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ModelError, require

if TYPE_CHECKING:
    import onnx

_LIMIT_BYTES = (1 << 31) - 1
"""The most that a protobuf may have."""


def read_model(path: Path) -> onnx.ModelProto:
    """Return the model in the file `path`; tensors that it keeps in other files are not read.

    Raises:
        ModelError: it cannot be read, is too large, or is no ONNX model.
        MissingPackage: onnx is not installed.
    """
    protos = require("onnx", "lint")
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(f"{path} is not a plain file; expected a model FILE.onnx")
        if facts.st_size > _LIMIT_BYTES:
            raise ModelError(
                f"{path} has {facts.st_size} bytes; an .onnx file has 2 GiB at most: save the "
                "model with its weights in a file beside it"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    try:
        model: onnx.ModelProto = protos.load_model_from_string(content)
    except Exception as error:  # protobuf's errors differ from one implementation to the next
        raise ModelError(
            f"{path} is not an .onnx file ({len(content)} bytes), or is damaged; export it again"
        ) from error
    if not model.graph.output or not model.opset_import:
        raise ModelError(
            f"{path} is not an .onnx file: its {len(content)} bytes hold no graph with outputs; "
            "it may be empty, truncated or of another format"
        )
    return model


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a model: initializers and attributes, in subgraphs and functions."""
    yield from _initializers(model.graph)
    for part in (model.graph, *model.functions):
        yield from _attributes(part)


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)


def _attributes(part: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in part.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _initializers(graph)
            yield from _attributes(graph)


def external_file(tensor: onnx.TensorProto) -> str | None:
    """Return the file that holds the values of `tensor`, or None: they are in the model itself."""
    if tensor.data_location != 1:  # TensorProto.EXTERNAL
        return None
    return next((e.value for e in tensor.external_data if e.key == "location"), "")


def stored_at(tensor: onnx.TensorProto, folder: Path | None) -> Path | None:
    """Return the file of an external `tensor` if it is a plain file in `folder`, else None.

    Nothing is read. A path that is absolute, climbs with ``..`` or goes through a link is no file
    in the folder: a model from somewhere else could name any file of this machine.
    """
    location = external_file(tensor)
    if not location or folder is None or "\0" in location:
        return None
    try:
        root = folder.resolve()
        file = (root / location).resolve()
        is_plain = file == root / location and file.is_relative_to(root) and file.is_file()
    except (OSError, RuntimeError):  # a name too long, a loop of links
        return None
    return file if is_plain else None
