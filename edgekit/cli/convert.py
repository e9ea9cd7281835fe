"""`edgekit convert`: a trained model to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edgekit.cli._output import Json, check_written, note, print_json, print_table, progress
from edgekit.converters.recipe import parse_list, parse_shape, read_recipe, recipe_of
from edgekit.errors import CheckFailed, InputError
from edgekit.isolated import run_isolated


def command(
    model: Annotated[Path, typer.Argument(help=".keras, .h5, SavedModel, float .tflite or .onnx.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="NAME.edgekit", help="The bundle to write.")
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, dynamic, int8, int16x8 or auto; else the target's best, or fp32."
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="litert or onnx; else the target's best.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Device; see edgekit targets.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Calibration set: image folder, FILE.npz[::X,Y], FILE.npy or FILE.csv."),
    ] = None,
    eval_data: Annotated[str | None, typer.Option(help="Labelled evaluation set.")] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="raw, unit, signed, imagenet, caffe, keras:NAME, and pairs: scale=1/255,color=bgr."
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="File of class names, one a line.")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification, segmentation, sequence or regression.")
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Fixes open dimensions: 1x224x224x3.")
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(help="Largest loss of the task's metric: 0.5% is half a point."),
    ] = None,
    calibration_samples: Annotated[
        int | None, typer.Option(help="Most calibration samples used (default 512).")
    ] = None,
    int8_steps: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Before int8: equalize,round,correct (default), some of them, or none.",
        ),
    ] = None,
    observer: Annotated[
        str | None,
        typer.Option(help="Ranges of activations: minmax (default), percentile or mse."),
    ] = None,
    ranges: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Range table, or a bundle with one, in the place of observed ones."
        ),
    ] = None,
    output_bits: Annotated[
        int | None,
        typer.Option(
            help="Outputs of int8 LiteRT models: 8 or 16 bits (default: 16 where it costs little)."
        ),
    ] = None,
    golden_frames: Annotated[
        bool | None,
        typer.Option(
            "--golden-frames/--no-golden-frames", help="Keep raw golden frames in the bundle."
        ),
    ] = None,
    streaming: Annotated[
        bool | None,
        typer.Option(
            "--streaming/--no-streaming", help="One step of a recurrent model, its state outside."
        ),
    ] = None,
    reset_on: Annotated[
        str | None,
        typer.Option(
            metavar="CAUSES",
            help="State becomes zero on: gap,source_back,end_of_sequence (default), dropped; none.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Settings from a TOML file or an older bundle; options override it."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the bundle even if it misses --max-drop.")
    ] = False,
    json: Json = None,
) -> None:
    """Convert a trained model to a bundle and prove what that cost."""
    settings: dict[str, Any] = read_recipe(recipe) if recipe is not None else {}
    given = {
        "precision": precision,
        "format": format_,
        "target": target,
        "data": data,
        "eval_data": eval_data,
        "preprocess": preprocess,
        "labels": labels,
        "task": task,
        "input_shape": None if input_shape is None else parse_shape(input_shape),
        "max_drop": max_drop,
        "calibration_samples": calibration_samples,
        "int8_steps": None if int8_steps is None else parse_list(int8_steps),
        "observer": observer,
        "ranges": ranges,
        "output_bits": output_bits,
        "golden_frames": golden_frames,
        "streaming": streaming,
        "reset_on": None if reset_on is None else parse_list(reset_on),
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    complete = recipe_of(settings).check()
    if not model.exists():
        raise InputError(
            f"no such model: {model}; expected .keras, .h5, a SavedModel folder, .tflite or .onnx"
        )
    read = {"output": output, "model": model, "data": data, "eval_data": eval_data}
    check_written({"json": json}, {**read, "labels": labels, "recipe": recipe, "ranges": ranges})
    with progress() as on_progress:
        summary = run_isolated(
            "edgekit.converters.convert:convert_in_child",
            {
                "recipe": msgspec.to_builtins(complete),
                "model": str(model),
                "out": str(output),
                "keep": keep,
            },
            what=f"converting {model}",
            on_progress=on_progress,
        )
    failure = summary.pop("failure")
    print_table(f"{model.name} → {output}", ("", ""), _rows(summary), json)
    for warning in summary["warnings"]:
        note(f"warning: {warning}")
    for fallback in summary["fallbacks"]:
        note(f"fallback: {fallback['what']}: {fallback['reason']}")
    for remark in summary["notes"]:
        note(f"note: {remark}")
    bad = (summary["layers"] or {}).get("first_bad")
    if bad is not None:
        note(f"first bad layer: {bad['name']} ({bad['cause']}): {bad['why']}")
    print_json(summary, json)
    if failure is not None:
        kept = f"{output} was kept" if keep else f"{output} was not written"
        raise CheckFailed(f"{failure}; {kept}")


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    from edgekit.evaluation.metrics import format_metric

    parity, accuracy = summary["parity"], summary["accuracy"]
    rows = [
        ("format, precision", f"{summary['format']}, {summary['precision']}"),
        ("model size", f"{summary['size_bytes'] / 1000:.1f} kB"),
        ("parity with the source", f"{parity['snr_db']:.1f} dB, n = {parity['n']}"),
        ("largest difference", f"{parity['max_abs']:.3g}"),
    ]
    if parity["agreement"] is not None:
        rows.append(("same top-1 answer", f"{100 * parity['agreement']:.2f} %"))
    if accuracy is not None:
        metric, n = accuracy["metric"], accuracy["n"]
        rows.append((f"{metric} of the source, n = {n}", format_metric(metric, accuracy["source"])))
        rows.append((f"{metric} of the bundle", format_metric(metric, accuracy["converted"])))
        rows.append(("lost", format_metric(metric, accuracy["drop"])))
    drift = summary["drift"]
    if drift is not None:
        worst = min(drift["blocks_snr_db"])
        text = f"{drift['snr_db']:.1f} dB, worst {drift['block_steps']} steps {worst:.1f} dB"
        rows.append((f"stream of {drift['steps']} steps", text))
    budget = summary["budget"]
    if budget is not None:
        rows += _mix_rows(budget)
    rows.append(("parts not as asked", str(len(summary["fallbacks"]))))
    rows.append(("took", f"{summary['seconds']:.1f} s, {summary['peak_rss_mb']:.0f} MB"))
    return rows


def _mix_rows(budget: dict[str, Any]) -> list[tuple[str, str]]:
    chosen = budget["chosen"]
    kinds = list(chosen["layers"].values())
    raised = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return [
        ("layers not int8", raised or "none"),
        ("one inference, predicted", f"{chosen['predicted_ms']:.3g} ms"),
        ("one inference in int8, in fp32", f"{budget['int8_ms']:.3g}, {budget['fp32_ms']:.3g} ms"),
        *(
            [("one inference, measured here", f"{chosen['measured_ms']:.3g} ms")]
            if chosen["measured_ms"] is not None
            else []
        ),
    ]
