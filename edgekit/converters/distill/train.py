"""Teacher and student -> trained student: `edgekit.distill`, and what `edgekit distill` does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from edgekit.atomic import write_file
from edgekit.converters.distill.course import Course
from edgekit.converters.distill.settings import Distillation
from edgekit.converters.quantize.ranges import Scheme
from edgekit.converters.training.fit import Score, check_out, keras_file, split_sets
from edgekit.errors import UsageError, expect_one_of, require
from edgekit.isolated import Progress
from edgekit.profiling.rss import peak_rss_mb
from edgekit.specs import Preprocess, Task

if TYPE_CHECKING:
    import keras


class DistillationSummary(msgspec.Struct, frozen=True):
    """What a distillation did; `docs/json.md` describes the fields."""

    file: str | None
    size_bytes: int | None
    seconds: float
    peak_rss_mb: float
    task: str
    metric: str
    n: int
    parameters: int
    teacher_parameters: int | None
    teacher: Score | None
    before: Score
    after: Score
    epochs: int
    best_epoch: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Distilled:
    """A student that has learned.

    Attributes:
        model: of Keras; quantize-aware after `qat`.
        summary: what the distillation did.
    """

    model: keras.Model
    summary: DistillationSummary


def distill(
    teacher: str | Path | keras.Model | Sequence[Any],
    student: str | Path | keras.Model,
    data: Any,
    out: str | Path | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    hints: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    hint_weight: float = 1.0,
    preprocess: str | Preprocess | None = None,
    teacher_preprocess: str | Preprocess | None = None,
    task: Task | None = None,
    augment: Any = None,
    eval_data: Any = None,
    held_out: float = 0.1,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    cosine: bool = False,
    clip_norm: float | None = None,
    class_weights: str | Mapping[int, float] | None = None,
    focal: float | None = None,
    freeze: str | None = None,
    freeze_epochs: int | None = None,
    unfrozen_learning_rate: float | None = None,
    patience: int = 3,
    qat: bool = False,
    scheme: Scheme = "litert",
    freeze_after: float | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Distilled:
    """Train a student on the answers of a teacher, and on labels where there are any.

    After Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, with hints after
    Romero et al., "FitNets", ICLR 2015. Neither teacher nor student is changed.

    Args:
        teacher: a model that `convert` reads, or several, whose mean answer is learned.
        student: a Keras 3 model or its path; or ``width=0.5``: the teacher's network with half of
            its filters and units, from random weights.
        data: what to learn from, with labels or without: as `load_data` takes it.
        out: NAME.keras; None: nothing is written.
        temperature: that softens both answers.
        alpha: the teacher's share of the loss, 0..1; labels have the rest.
        hints: pairs (teacher's layer, student's layer) whose outputs are to become alike.
        hint_weight: of each hint's loss.
        preprocess: how frames become the student's input, as `convert` takes it.
        teacher_preprocess: likewise for the teachers, if it is another one.
        task: what the output means; by default told from labels and answers.
        augment: ``shift``, ``flip`` or ``shift,flip``; or a layer of Keras, which gets batches of
            float32 RGB 0..255 for frames. Teacher and student see the same result.
        eval_data: the set that tells when to stop.
        held_out: without it, the share of `data` that is held out.
        epochs: most passes over `data`.
        batch_size: samples a step.
        learning_rate: of Adam.
        cosine: let the rate fall to 0 along a cosine.
        clip_norm: longest gradient of a step.
        class_weights: of the labelled loss, by class index; or ``balanced``.
        focal: gamma of a focal labelled loss.
        freeze: names of layers that stay as they are, as ``block1_*,stem``.
        freeze_epochs: for how many epochs they do; without `freeze` it is all layers but the last.
        unfrozen_learning_rate: after that; by default a tenth of `learning_rate`.
        patience: epochs without a smaller loss after which it stops.
        qat: make the student quantize-aware first, as `quantize_aware` does.
        scheme: of its grids.
        freeze_after: epochs after which its BatchNormalization keeps its statistics.
        seed: of everything random.
        on_progress: called with (phase, done, total).

    Raises:
        UsageError: a setting that cannot be.
        ModelError: a model that cannot be read or trained, or two that do not fit each other.
        DataError: a set that cannot be used.
        OutputError: `out` cannot be written.

    >>> student = edgekit.distill("resnet.keras", small, (images, labels), augment="flip").model
    """
    given = {name: value for name, value in locals().items() if name in _SETTINGS}
    pairs = hints.items() if isinstance(hints, Mapping) else hints
    given["hints"] = tuple((str(one), str(other)) for one, other in pairs)
    settings = Distillation(**given)
    teachers = list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    path = None if out is None else Path(out)
    return _distill(teachers, student, path, settings, on_progress or (lambda *progress: None))


_SETTINGS = frozenset(Distillation.__struct_fields__)


def distill_in_child(
    teachers: list[str], student: str, out: str, settings: dict[str, Any], on_progress: Progress
) -> Any:
    """Distill as the command line does, with JSON values in and out (`run_isolated`)."""
    expect_one_of("scheme", settings["scheme"], get_args(Scheme))
    if settings["task"] is not None:
        expect_one_of("task", settings["task"], get_args(Task))
    try:
        given = msgspec.convert(settings, Distillation, str_keys=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"a setting cannot be: {error}") from error
    found = _distill(list(teachers), student, Path(out), given, on_progress)
    return msgspec.to_builtins(found.summary)


def _distill(
    teachers: list[Any],
    student: Any,
    out: Path | None,
    settings: Distillation,
    on_progress: Progress,
) -> Distilled:
    started_s = time.perf_counter()
    settings.check()
    if not teachers:
        raise UsageError("`teacher` is empty; give at least one model")
    if out is not None:
        given = [*teachers, student]
        check_out(out, [Path(model) for model in given if isinstance(model, str | Path)])
    on_progress("reading the data", 0, 0)
    sets = split_sets(settings)
    keras: Any = require("keras", "convert")
    keras.utils.set_random_seed(settings.seed)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        course = Course(teachers, student, sets, settings, Path(folder), on_progress)
        found = course.run()
        content = None if out is None else keras_file(course.model, Path(folder) / "model.keras")
    if out is not None and content is not None:
        write_file(out, content)
    summary = DistillationSummary(
        file=None if out is None else str(out),
        size_bytes=None if content is None else len(content),
        seconds=time.perf_counter() - started_s,
        peak_rss_mb=peak_rss_mb(),
        **found,
    )
    return Distilled(course.model, summary)
