"""What TensorRT refuses in an ONNX file, and what it would not fuse, told without any GPU.

The rules, their sources and how each was confirmed: `docs/tensorrt-rules.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.converters.onnx.lint import files, operators, placement, quantization
from edgekit.converters.onnx.lint.finding import Finding, Severity
from edgekit.converters.onnx.lint.scope import Scope, with_types
from edgekit.errors import require

if TYPE_CHECKING:
    import onnx

__all__ = ["Finding", "Severity", "is_clean", "lint"]

_ORDER: tuple[Severity, ...] = ("refused", "not fused", "note")


def lint(model: onnx.ModelProto, folder: Path | None = None) -> tuple[Finding, ...]:
    """Return what TensorRT objects to in `model`, the gravest first, else in the file's order.

    Args:
        model: as parsed; external data need not be loaded and is not, but for scales.
        folder: where the model's file lies. Only files in it are ever read; None: none are.

    Raises:
        ModelError: a tensor is damaged.
        MissingPackage: onnx is not installed.

    >>> [f.rule for f in lint(onnx.load("model.onnx", load_external_data=False))]
    ['zero-point']
    """
    typed = with_types(model)
    outermost = Scope(typed.graph, typed, folder)
    functions = [Scope(_body(function), typed, folder) for function in typed.functions]
    found = list(files.check(outermost, folder))
    for scope in (inner for graph in (outermost, *functions) for inner in graph.walk()):
        for rules in (operators, quantization, placement):
            found += rules.check(scope)
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: _ORDER.index(finding.severity)))


def is_clean(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing among `findings` is refused or not fused."""
    return all(finding.severity == "note" for finding in findings)


def _body(function: onnx.FunctionProto) -> onnx.GraphProto:
    protos = require("onnx", "lint")
    inputs = [protos.ValueInfoProto(name=name) for name in function.input]
    graph: onnx.GraphProto = protos.GraphProto(node=function.node, input=inputs)
    return graph
