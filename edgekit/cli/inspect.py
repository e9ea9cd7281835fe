"""`edgekit inspect`: what is in a bundle or a .tflite, without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli._output import Json, print_json, print_table
from edgekit.specs import TensorSpec


def command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="NAME.edgekit or FILE.tflite.")],
    json: Json = None,
) -> None:
    """Show tensors, dtypes, quantization, operators and size."""
    import msgspec

    from edgekit.bundle import read_bundle
    from edgekit.errors import ModelError
    from edgekit.runtime.tflite import describe_tflite

    bundle = None
    file = path
    if path.is_dir() or path.suffix == ".edgekit":
        bundle = read_bundle(path)
        file = bundle.model_path
    elif path.suffix != ".tflite":
        raise ModelError(f"cannot inspect {path}; expected a bundle NAME.edgekit or a .tflite")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    model = describe_tflite(content, str(file))
    counts = Counter(operator.name for operator in model.operators)
    result: dict[str, Any] = {
        "path": str(path),
        "size_bytes": model.size_bytes,
        "inputs": msgspec.to_builtins(model.inputs),
        "outputs": msgspec.to_builtins(model.outputs),
        "operators": dict(counts.most_common()),
        "bundle": None,
    }
    if bundle is not None:
        manifest: dict[str, Any] = msgspec.to_builtins(bundle.manifest)
        result["bundle"] = manifest | {"labels": bundle.labels}
        facts = [(name, _fact(manifest[name])) for name in ("task", "precision", "target")]
        for name in ("preprocess", "postprocess", "parity", "accuracy", "golden"):
            facts.append((name, _fact(manifest[name])))
        facts += [("source", manifest["provenance"]["source"]), ("labels", str(len(bundle.labels)))]
        print_table(str(path), ("", ""), facts, json, numbers=False)
    rows = [
        (kind, spec.name, "x".join(map(str, spec.shape)), spec.dtype, _quantization(spec))
        for kind, specs in (("input", model.inputs), ("output", model.outputs))
        for spec in specs
    ]
    columns = ("tensor", "name", "shape", "dtype", "quantization")
    title = f"{file.name}: {model.size_bytes / 1000:.1f} kB"
    print_table(title, columns, rows, json, numbers=False)
    print_table(
        f"{len(model.operators)} operators",
        ("operator", "count"),
        [(name, str(count)) for name, count in counts.most_common()],
        json,
    )
    print_json(result, json)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_fact(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ":".join(_fact(part) for part in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else str(value)


def _quantization(spec: TensorSpec) -> str:
    return "none" if spec.scale is None else f"scale {spec.scale:.6g}, zero {spec.zero_point}"
