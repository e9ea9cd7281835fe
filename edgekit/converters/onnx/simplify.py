"""ONNX Runtime's basic optimizations, done ahead: folding, fusing, dropping what is not read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgekit.converters.sources.graph import one_line
from edgekit.errors import ModelError, require
from edgekit.runtime.backends.onnxruntime import import_onnxruntime

_STANDARD = ("", "ai.onnx")
_ERRORS_ONLY = 3


def simplify(model: Any, kept: Iterable[str] = ()) -> Any:
    """Return `model` with constants folded, and what came before or behind a convolution fused.

    These are the optimizations of ONNX Runtime that hold everywhere: BatchNormalization, Pad and
    multiplications go into convolutions, MatMul and Add become Gemm.

    Args:
        model: an `onnx.ModelProto` with all dimensions fixed; it stays as it is.
        kept: tensors that must not be fused away.

    Raises:
        ModelError: ONNX Runtime cannot read it.
    """
    onnx, runtime = require("onnx", "convert"), import_onnxruntime()
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    known = {info.name: info for info in inferred.graph.value_info}
    model = onnx.ModelProto.FromString(model.SerializeToString())
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(
        known[n] for n in dict.fromkeys(kept) if n in known and n not in outputs
    )
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = _ERRORS_ONLY
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        file = Path(folder) / "simplified.onnx"
        options.optimized_model_filepath = str(file)
        try:
            runtime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # every status of ONNX Runtime is a class of its own
            raise ModelError(
                f"ONNX Runtime cannot read this ONNX model: {one_line(error)}"
            ) from error
        simple = onnx.load(file)
    del simple.graph.output[len(outputs) :]
    drop_unread(simple.graph)
    _tidy(onnx, simple)
    return onnx.shape_inference.infer_shapes(simple, data_prop=True)


def drop_unread(graph: Any) -> None:
    """Drop the nodes and constants of an ONNX graph that none of its outputs depends on."""
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= names_read(node)
    kept = [initializer for initializer in graph.initializer if initializer.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(kept)


def sort_nodes(graph: Any) -> None:
    """Put the nodes of an ONNX graph in an order in which they can run, as its format asks for."""
    missing = {output for node in graph.node for output in node.output}
    waiting, nodes = list(graph.node), []
    while waiting:
        blocked = []
        for node in waiting:
            if names_read(node) & missing:
                blocked.append(node)
            else:
                nodes.append(node)
                missing -= set(node.output)
        if len(blocked) == len(waiting):
            raise ModelError(f"the nodes around {waiting[0].name!r} read each other in a circle")
        waiting = blocked
    del graph.node[:]
    graph.node.extend(nodes)


def names_read(node: Any) -> set[str]:
    """Return the tensors that a node reads, in its subgraphs too."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            found |= {output.name for output in graph.output}
            found |= {name for inner in graph.node for name in names_read(inner)}
    return found


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename tensors of a graph, wherever they stand."""
    for infos in (graph.input, graph.output, graph.value_info, graph.initializer):
        for info in infos:
            info.name = names.get(info.name, info.name)
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                rename(inner, names)


def name_outputs(graph: Any, wanted: Iterable[str]) -> None:
    """Give a graph's outputs these names; a tensor inside that has one of them gives way."""
    outputs = [output.name for output in graph.output]
    names = {old: new for old, new in zip(outputs, wanted, strict=True) if old != new}
    made = {output for node in graph.node for output in node.output}
    inside = made.difference(outputs).intersection(names.values())
    rename(graph, {**names, **{name: f"{name}/inner" for name in inside}})


def fix_shape(tensor: Any, shape: Iterable[int]) -> None:
    """Write a tensor's dimensions, whatever was known of them."""
    dimensions = tensor.type.tensor_type.shape.dim
    del dimensions[:]
    for size in shape:
        dimensions.add().dim_value = size


def _tidy(onnx: Any, model: Any) -> None:
    """Drop what ONNX Runtime lists whether it is used or not: domains, and tensors long gone."""
    used = {node.domain for node in model.graph.node} - set(_STANDARD)
    kept = [one for one in model.opset_import if one.domain in used or one.domain in _STANDARD]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    del model.metadata_props[:], model.graph.value_info[:]
    model.graph.name, model.graph.doc_string = "model", ""
    model.ir_version = onnx.helper.find_min_ir_version_for(kept, ignore_unknown=True)
    model.producer_name, model.producer_version = "edgekit", ""
