"""`edgekit inspect`: what is in a bundle, a .tflite or an .onnx, and costs, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli._output import Json, note, print_json, print_table
from edgekit.specs import TensorSpec

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.converters.onnx.lint.finding import Finding
    from edgekit.profiling.results import Cost
    from edgekit.streaming import Streaming

_SHOWN = 5  # findings of one rule; all are in the JSON
_NAME_LENGTH = 24  # of a layer in the table; the JSON has all of it


def command(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="NAME.edgekit, FILE.tflite or FILE.onnx.")
    ],
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit 1 if TensorRT refuses or does not fuse the .onnx."),
    ] = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Also parameters, multiplications and bytes of each operator."
        ),
    ] = False,
    json: Json = None,
) -> None:
    """Show tensors, dtypes, quantization, operators and size; of .onnx what TensorRT objects to."""
    import msgspec

    from edgekit.bundle import read_bundle
    from edgekit.errors import ModelError, UsageError

    bundle = None
    file = path
    if path.is_dir() or path.suffix == ".edgekit":
        bundle = read_bundle(path)
        file = bundle.model_path
    elif path.suffix not in (".tflite", ".onnx"):
        raise ModelError(
            f"cannot inspect {path}; expected a bundle NAME.edgekit, a .tflite or an .onnx"
        )
    if strict and file.suffix != ".onnx":
        raise UsageError(f"--strict judges .onnx models; {path} holds {file.name}")
    result: dict[str, Any]
    findings: tuple[Finding, ...] | None = None
    if file.suffix != ".onnx":
        result = _inspect_tflite(file)
    elif bundle is not None and not strict and find_spec("onnx") is None:
        result = _from_manifest(bundle)
    else:
        result, findings = _inspect_onnx(file)
    result = {
        "path": str(path),
        **result,
        "findings": None if findings is None else msgspec.to_builtins(findings),
        "cost": _cost(file) if layers else None,
        "bundle": None,
    }
    if bundle is not None:
        result["bundle"] = _print_bundle(bundle, path, json)
    _print_model(file.name, result, json)
    if layers:
        _print_cost(result["cost"], json)
    if findings is not None:
        _print_findings(findings, json)
    print_json(result, json)
    _judge(path, findings or (), strict)


def _from_manifest(bundle: Bundle) -> dict[str, Any]:
    """Return what a bundle says of its .onnx, for devices that have no package to read it with."""
    note(
        "note: operators, and what TensorRT objects to, need the package onnx: "
        "pip install 'edgekit[lint]'"
    )
    return {
        "size_bytes": bundle.size_bytes,
        "inputs": bundle.manifest.inputs,
        "outputs": bundle.manifest.outputs,
        "operators": {},
    }


def _inspect_tflite(file: Path) -> dict[str, Any]:
    from edgekit.errors import ModelError
    from edgekit.runtime.tflite import describe_tflite

    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    model = describe_tflite(content, str(file))
    counts = Counter(operator.name for operator in model.operators)
    return {
        "size_bytes": model.size_bytes,
        "inputs": model.inputs,
        "outputs": model.outputs,
        "operators": dict(counts.most_common()),
    }


def _inspect_onnx(file: Path) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    import msgspec

    from edgekit.converters.onnx.lint.finding import Finding
    from edgekit.isolated import run_isolated

    found = run_isolated(
        "edgekit.converters.onnx.lint.describe:inspect_file",
        {"path": str(file)},
        what=f"reading {file}",
    )
    findings = msgspec.convert(found.pop("findings"), tuple[Finding, ...])
    for kind in ("inputs", "outputs"):
        found[kind] = msgspec.convert(found[kind], tuple[TensorSpec, ...])
    return found, findings


def _cost(file: Path) -> Cost:
    from edgekit.errors import ModelError
    from edgekit.profiling.cost import cost_of_file

    cost = cost_of_file(file, "onnx" if file.suffix == ".onnx" else "litert")
    if cost is None:
        raise ModelError(f"nothing here tells what {file} costs; expected a .tflite or an .onnx")
    return cost


def _judge(path: Path, findings: Sequence[Finding], strict: bool) -> None:
    from edgekit.errors import CheckFailed

    grave = [finding for finding in findings if finding.severity != "note"]
    if strict and grave:
        first = grave[0]
        raise CheckFailed(
            f"{path}: TensorRT objects to {len(grave)} things, the first being {first.rule} at "
            f"{first.node}: {first.message}; {first.remedy}"
        )


def _print_bundle(bundle: Bundle, path: Path, json: str | None) -> dict[str, Any]:
    import msgspec

    manifest: dict[str, Any] = msgspec.to_builtins(bundle.manifest)
    facts = [(name, _fact(manifest[name])) for name in ("task", "precision", "target")]
    for name in ("preprocess", "postprocess", "parity", "accuracy", "golden"):
        facts.append((name, _fact(manifest[name])))
    if bundle.manifest.streaming is not None:
        facts.append(("streaming", _stream(bundle.manifest.streaming)))
    facts += [("source", manifest["provenance"]["source"]), ("labels", str(len(bundle.labels)))]
    print_table(str(path), ("", ""), facts, json, numbers=False)
    return manifest | {"labels": bundle.labels}


def _stream(streaming: Streaming) -> str:
    resets = ", ".join(("first", *(cause.replace("_", " ") for cause in streaming.reset_on)))
    text = f"{len(streaming.states)} states, zero on: {resets}"
    drift = streaming.drift
    return text if drift is None else f"{text}; {drift.steps} steps {drift.snr_db:.1f} dB"


def _print_model(name: str, result: dict[str, Any], json: str | None) -> None:
    rows = [
        (kind, spec.name, _shape(spec), spec.dtype, _quantization(spec))
        for kind in ("input", "output")
        for spec in result[f"{kind}s"]
    ]
    columns = ("tensor", "name", "shape", "dtype", "quantization")
    print_table(f"{name}: {result['size_bytes'] / 1000:.1f} kB", columns, rows, json, numbers=False)
    operators: dict[str, int] = result["operators"]
    if not operators:
        return
    print_table(
        f"{sum(operators.values())} operators",
        ("operator", "count"),
        [(operator, str(count)) for operator, count in operators.items()],
        json,
    )


def _print_cost(cost: Cost, json: str | None) -> None:
    moved = [layer.read_bytes + layer.written_bytes for layer in cost.layers]
    rows = [
        (
            _short(layer.name),
            layer.kind,
            "x".join(map(str, layer.shape)),
            layer.dtype,
            layer.weights,
            f"{layer.parameters:,}",
            f"{layer.macs:,}",
            f"{size_bytes / 1000:,.1f}",
        )
        for layer, size_bytes in zip(cost.layers, moved, strict=True)
    ]
    total = ("total", "", "", "", "", f"{cost.parameters:,}", f"{cost.macs:,}")
    rows.append((*total, f"{sum(moved) / 1000:,.1f}"))
    print_table(
        f"{cost.macs:,} MACs, {cost.parameters:,} parameters, activations at most "
        f"{cost.activations_bytes / 1000:,.1f} kB",
        ("layer", "operator", "shape", "dtype", "weights", "parameters", "MACs", "kB"),
        rows,
        json,
    )
    for said in cost.notes:
        note(f"note: {said}")


def _short(name: str) -> str:
    """Return the end of the first of the names that a converter has joined."""
    first = name.partition(";")[0]
    return first if len(first) <= _NAME_LENGTH else f"…{first[1 - _NAME_LENGTH :]}"


def _print_findings(findings: Sequence[Finding], json: str | None) -> None:
    if not findings:
        print_table("TensorRT: nothing to object to", (), (), json)
        return
    counts = Counter(finding.severity for finding in findings)
    total = Counter((finding.severity, finding.rule) for finding in findings)
    seen: Counter[tuple[str, str]] = Counter()
    rows = []
    for finding in findings:
        kind = (finding.severity, finding.rule)
        seen[kind] += 1
        if seen[kind] <= _SHOWN:
            rows.append((*kind, finding.node, finding.message, finding.remedy))
        elif seen[kind] == total[kind]:
            rows.append((*kind, "…", f"and {total[kind] - _SHOWN} more; --json has all", ""))
    title = ", ".join(f"{count} {severity}" for severity, count in counts.items())
    columns = ("TensorRT", "rule", "node", "what", "remedy")
    print_table(f"TensorRT: {title}", columns, rows, json, numbers=False)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ":".join(_fact(part) for part in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


def _shape(spec: TensorSpec) -> str:
    return "x".join("?" if size < 0 else str(size) for size in spec.shape)


def _quantization(spec: TensorSpec) -> str:
    return "none" if spec.scale is None else f"scale {spec.scale:.6g}, zero {spec.zero_point}"
