"""`edgekit distill`: a small Keras model trained on the answers of a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli._output import Json, check_written, note, print_json, print_table, progress
from edgekit.errors import InputError, UsageError
from edgekit.isolated import run_isolated


def command(
    teacher: Annotated[Path, typer.Argument(help="Trained model, of any kind convert reads.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.keras", help="The model to write.")
    ],
    data: Annotated[
        str, typer.Option(help="Set: folder of images or class folders, FILE.npz[::X,Y] or .npy.")
    ],
    student: Annotated[
        str | None, typer.Argument(help="Keras 3 model that learns: .keras or .h5.")
    ] = None,
    derived: Annotated[
        str | None,
        typer.Option(
            "--student", help="In place of STUDENT, width=0.5: TEACHER with half of its filters."
        ),
    ] = None,
    teachers: Annotated[
        list[Path] | None, typer.Option("--teacher", help="One more teacher; may be repeated.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="That softens both answers.")] = 4.0,
    alpha: Annotated[
        float, typer.Option(help="The teacher's share of the loss, 0..1; labels have the rest.")
    ] = 0.9,
    hint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THEIRS=OURS", help="Layers of teacher and student that are to become alike."
        ),
    ] = None,
    hint_weight: Annotated[float, typer.Option(help="Of each hint's loss.")] = 1.0,
    preprocess: Annotated[
        str | None, typer.Option(help="Of the student, as edgekit convert takes it.")
    ] = None,
    teacher_preprocess: Annotated[
        str | None, typer.Option(help="Of the teachers, if it is another one.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What the output means, if labels do not tell.")
    ] = None,
    augment: Annotated[str | None, typer.Option(help="shift, flip or shift,flip.")] = None,
    epochs: Annotated[int, typer.Option(help="Most passes over the set.")] = 10,
    eval_data: Annotated[str | None, typer.Option(help="Set that tells when to stop.")] = None,
    held_out: Annotated[
        float, typer.Option(help="Without --eval-data: the share of --data that is held out.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    cosine: Annotated[bool, typer.Option("--cosine", help="Let the rate fall to 0.")] = False,
    clip_norm: Annotated[float | None, typer.Option(help="Longest gradient of a step.")] = None,
    class_weights: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="balanced, or 0=1,3=2.5.")
    ] = None,
    focal: Annotated[float | None, typer.Option(help="Gamma of a focal labelled loss.")] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Layers that stay as they are: block1_*,stem.")
    ] = None,
    freeze_epochs: Annotated[
        int | None, typer.Option(help="For so long; without --freeze: all layers but the last.")
    ] = None,
    unfrozen_learning_rate: Annotated[
        float | None, typer.Option(help="After that; by default a tenth.")
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Epochs without a smaller loss after which it stops.")
    ] = 3,
    qat: Annotated[
        bool, typer.Option("--qat", help="Train the student for int8, as edgekit qat does.")
    ] = False,
    scheme: Annotated[str, typer.Option(help="Of --qat: litert or tensorrt.")] = "litert",
    freeze_after: Annotated[
        float | None,
        typer.Option(help="Of --qat: epochs after which BatchNormalization keeps its statistics."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    json: Json = None,
) -> None:
    """Train a small Keras model on the answers of a trained one, and on labels if there are any."""
    settings = {
        "data": data,
        "temperature": temperature,
        "alpha": alpha,
        "hints": [_pair("hint", text, "THEIR_LAYER=OUR_LAYER") for text in hint or ()],
        "hint_weight": hint_weight,
        "preprocess": preprocess,
        "teacher_preprocess": teacher_preprocess,
        "task": task,
        "augment": augment,
        "epochs": epochs,
        "eval_data": eval_data,
        "held_out": held_out,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "cosine": cosine,
        "clip_norm": clip_norm,
        "class_weights": _weights(class_weights),
        "focal": focal,
        "freeze": freeze,
        "freeze_epochs": freeze_epochs,
        "unfrozen_learning_rate": unfrozen_learning_rate,
        "patience": patience,
        "qat": qat,
        "scheme": scheme,
        "freeze_after": freeze_after,
        "seed": seed,
    }
    learner = _learner(student, derived)
    for model in (teacher, *(teachers or ())):
        if not model.exists():
            raise InputError(f"no such teacher: {model}; expected a model that convert reads")
    learns = None if student is None or student.startswith("width=") else student
    read = {"output": output, "student": learns, "data": data, "eval_data": eval_data}
    named = {f"teacher {number}": path for number, path in enumerate(teachers or (), 2)}
    check_written({"json": json}, {**read, "teacher": teacher, **named})
    with progress() as on_progress:
        summary = run_isolated(
            "edgekit.converters.distill.train:distill_in_child",
            {
                "teachers": [str(model) for model in (teacher, *(teachers or ()))],
                "student": learner,
                "out": str(output),
                "settings": settings,
            },
            what=f"distilling {teacher}",
            on_progress=on_progress,
        )
    print_table(f"{teacher.name} → {output}", ("", ""), _rows(summary), json)
    for remark in summary["notes"]:
        note(f"note: {remark}")
    print_json(summary, json)


def _learner(student: str | None, derived: str | None) -> str:
    """Return the student's path, or ``width=FACTOR``."""
    if (student is None) == (derived is None):
        raise UsageError("give a student: either STUDENT, a .keras file, or --student width=0.5")
    if derived is not None:
        if not derived.startswith("width="):
            raise UsageError(f"`student` must be width=FACTOR, like width=0.5; got {derived!r}")
        return derived
    assert student is not None
    if not student.startswith("width=") and not Path(student).exists():
        raise InputError(f"no such student: {student}; expected .keras or .h5, or width=0.5")
    return student


def _pair(argument: str, text: str, form: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not one or not equals or not other:
        raise UsageError(f"`{argument}` must be {form}; got {text!r}")
    return one, other


def _weights(text: str | None) -> str | dict[str, float] | None:
    """Read ``0=1,3=2.5``; a word stays one."""
    if text is None or "=" not in text:
        return text
    pairs = [_pair("class_weights", part, "balanced or CLASS=WEIGHT,…") for part in text.split(",")]
    try:
        return {str(int(index)): float(weight) for index, weight in pairs}
    except ValueError as error:
        raise UsageError(
            f"`class_weights` must be balanced or CLASS=WEIGHT,… with numbers; got {text!r}"
        ) from error


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    metric, n = summary["metric"], summary["n"]
    rows = [("epochs", f"{summary['epochs']}, best {summary['best_epoch']}")]
    sizes = [summary["teacher_parameters"], summary["parameters"]]
    rows.append(
        ("parameters, teacher → student", " → ".join("?" if s is None else f"{s:,}" for s in sizes))
    )
    for key, what in (
        ("teacher", "teacher"),
        ("before", "student, before"),
        ("after", "student, distilled"),
    ):
        score = summary[key]
        if score is not None:
            rows.append((f"{metric} of the {what}, n = {n}", f"{score['metric']:.4f}"))
            rows.append((f"loss of the {what}", f"{score['loss']:.4g}"))
    rows.append(("took", f"{summary['seconds']:.1f} s, {summary['peak_rss_mb']:.0f} MB"))
    return rows
