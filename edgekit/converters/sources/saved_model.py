"""SavedModel folders of TensorFlow, by their ``serving_default`` signature."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.converters.sources.graph import FrozenGraph, fixed_inputs, freeze, one_line
from edgekit.errors import ModelError, UnsafeModelError, require

_SIGNATURE = "serving_default"
# Operators that run Python or reach files or the network: families of names, since TensorFlow adds
# to them and keeps old ones under other names. None has a counterpart in LiteRT.
_REACHES_OUT = re.compile(
    r"PyFunc|File|Dataset|Reader|Iterator|Snapshot|Checkpoint|Save|Restore|Rpc|Print|Dump|Debug"
    r"|Summary|Remap|RecordInput|CandidateSampler|ImmutableConst|LMDB|Sql|TextLine"
)
# The saver that every SavedModel carries needs these; nothing else does.
_SAVER = frozenset(
    {
        "SaveV2",
        "RestoreV2",
        "MergeV2Checkpoints",
        "ShardedFilename",
        "Save",
        "Restore",
        "SaveSlices",
    }
)
_SAVER_FUNCTIONS = ("__inference__traced_save", "__inference__traced_restore")


def open_saved_model(path: Path, input_shape: tuple[int, ...] | None) -> FrozenGraph:
    """Open a SavedModel folder; see `open_source`."""
    require("tensorflow", "convert")
    _check_operators(path)
    return freeze_signature(path, "saved_model", input_shape, str(path))


def freeze_signature(
    path: Path,
    kind: str,
    input_shape: tuple[int, ...] | None,
    where: str,
    order: tuple[Sequence[str], Sequence[str]] | None = None,
) -> FrozenGraph:
    """Load the folder `path` and freeze its ``serving_default`` signature.

    Args:
        path: the folder.
        kind: what to call the source.
        input_shape: see `open_source`.
        where: the model, for messages.
        order: names of the inputs and of the outputs, in the order wanted; without it inputs
            come in the order of the traced function, outputs by name.

    Raises:
        ModelError: it cannot be loaded or has no such signature.
    """
    tf = require("tensorflow", "convert")
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        raise ModelError(
            f"TensorFlow {tf.__version__} cannot load {where}: {one_line(error)}"
        ) from error
    if _SIGNATURE not in loaded.signatures:
        raise ModelError(
            f"{where} has no signature {_SIGNATURE}; it has "
            f"{', '.join(loaded.signatures) or 'none'}; save it with "
            f"tf.saved_model.save(model, path, signatures={{'{_SIGNATURE}': function}})"
        )
    signature = loaded.signatures[_SIGNATURE]
    # What will run is checked without exception: a function may call itself what it likes.
    _check_graph(signature.graph.as_graph_def(), path, frozenset())
    tensors = signature.structured_input_signature[1]
    inputs, outputs = order or (
        _traced_order(signature, tensors),
        sorted(signature.structured_outputs, key=_natural),
    )
    specs = [(name, _shape(tensors[name]), tensors[name].dtype.name) for name in inputs]

    def call(*values: Any) -> Any:
        answer = signature(**dict(zip(inputs, values, strict=True)))
        return [answer[name] for name in outputs]

    # The loaded object owns the variables; the closure keeps it until they are constants.
    call.owner = loaded  # type: ignore[attr-defined]
    return freeze(kind, call, fixed_inputs(specs, input_shape, where), list(outputs))


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts output_2 before output_10."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", name)]


def _traced_order(signature: Any, tensors: dict[str, Any]) -> list[str]:
    """Return the names of the inputs in the order of the graph's placeholders."""
    captured = {id(inner) for _, inner in signature.graph.captures}
    placeholders = [t for t in signature.inputs if id(t) not in captured]
    names = [
        t.op.get_attr("_user_specified_name").decode()
        for t in placeholders
        if "_user_specified_name" in t.op.node_def.attr
    ]
    return names if sorted(names) == sorted(tensors) else sorted(tensors)


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape.as_list())


def _check_operators(path: Path) -> None:
    """Refuse graphs with operators that reach outside the graph, before anything is loaded."""
    proto: Any = require("tensorflow.core.protobuf.saved_model_pb2", "convert").SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's DecodeError has moved between its versions
        raise ModelError(
            f"{path}/saved_model.pb is damaged or incomplete; copy or save the model again"
        ) from error
    if not proto.meta_graphs:
        raise ModelError(f"{path}/saved_model.pb is empty; copy or save the model again")
    for meta in proto.meta_graphs:
        _check_graph(meta.graph_def, path, _SAVER)


def _check_graph(graph: Any, path: Path, allowed_in_saver: frozenset[str]) -> None:
    _check_nodes(graph.node, path, "the main graph", frozenset())
    for function in graph.library.function:
        name = function.signature.name
        allowed = allowed_in_saver if name.startswith(_SAVER_FUNCTIONS) else frozenset()
        _check_nodes(function.node_def, path, f"function {name}", allowed)


def _check_nodes(nodes: Any, path: Path, where: str, allowed: frozenset[str]) -> None:
    for node in nodes:
        if node.op not in allowed and _REACHES_OUT.search(node.op):
            raise UnsafeModelError(
                f"{path}: {where} runs {node.op} (node {node.name}), which reaches outside the "
                f"model; EdgeKit never runs it, so export the model without it"
            )
