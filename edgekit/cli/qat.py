"""`edgekit qat`: a trained Keras model trained further with what int8 will do to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli._output import Json, check_written, note, print_json, print_table, progress
from edgekit.errors import InputError
from edgekit.isolated import run_isolated


def command(
    model: Annotated[Path, typer.Argument(help="Trained Keras 3 model: .keras or .h5.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.keras", help="The model to write.")
    ],
    data: Annotated[
        str, typer.Option(help="Labelled set: folder of class folders, or FILE.npz[::X,Y].")
    ],
    epochs: Annotated[int, typer.Option(help="Most passes over the set.")] = 10,
    eval_data: Annotated[
        str | None, typer.Option(help="Labelled set that tells when to stop.")
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Without --eval-data: the share of --data that is held out.")
    ] = 0.1,
    preprocess: Annotated[
        str | None, typer.Option(help="As edgekit convert takes it, and as the model was trained.")
    ] = None,
    scheme: Annotated[str, typer.Option(help="litert or tensorrt (zero points 0).")] = "litert",
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-4,
    patience: Annotated[
        int, typer.Option(help="Epochs without a smaller loss after which it stops.")
    ] = 3,
    freeze_after: Annotated[
        float | None,
        typer.Option(help="Epochs after which BatchNormalization keeps its statistics."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: Json = None,
) -> None:
    """Train a Keras model so that it loses less in int8; convert then needs no calibration set."""
    settings = {
        "data": data,
        "eval_data": eval_data,
        "held_out": held_out,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
        "freeze_after": freeze_after,
        "scheme": scheme,
        "preprocess": preprocess,
        "seed": seed,
    }
    if not model.exists():
        raise InputError(f"no such model: {model}; expected .keras or .h5")
    check_written(
        {"json": json}, {"output": output, "model": model, "data": data, "eval_data": eval_data}
    )
    with progress() as on_progress:
        summary = run_isolated(
            "edgekit.converters.quantize.aware.train:train_in_child",
            {"model": str(model), "out": str(output), "settings": settings},
            what=f"training {model}",
            on_progress=on_progress,
        )
    print_table(f"{model.name} → {output}", ("", ""), _rows(summary), json)
    for remark in summary["notes"]:
        note(f"note: {remark}")
    print_json(summary, json)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    metric, n = summary["metric"], summary["n"]
    rows = [("epochs", f"{summary['epochs']}, best {summary['best_epoch']}")]
    for key, what in (
        ("source", "float source"),
        ("before", "rounded, before training"),
        ("after", "rounded, trained"),
    ):
        score = summary[key]
        rows.append((f"{metric} of the {what}, n = {n}", f"{score['metric']:.4f}"))
        rows.append((f"loss of the {what}", f"{score['loss']:.4g}"))
    rows.append(("took", f"{summary['seconds']:.1f} s, {summary['peak_rss_mb']:.0f} MB"))
    return rows
