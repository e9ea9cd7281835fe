"""Quantization-aware training of the plain supervised case: what `edgekit qat` does."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, get_args

import msgspec
from numpy.typing import NDArray

from edgekit.atomic import write_file
from edgekit.converters.quantize.aware.observe import MOST_SAMPLES
from edgekit.converters.quantize.aware.rewrite import quantize_aware
from edgekit.converters.quantize.ranges import Scheme
from edgekit.converters.samples import model_inputs, subset
from edgekit.converters.sources import open_source
from edgekit.converters.training.case import Case, case_of
from edgekit.converters.training.fit import (
    Fit,
    Score,
    Stage,
    batches,
    check_out,
    chosen,
    fit_best,
    keras_file,
    split_sets,
)
from edgekit.data import Dataset
from edgekit.errors import UsageError, expect_one_of, require
from edgekit.isolated import Progress
from edgekit.profiling.rss import peak_rss_mb


class Training(Fit, frozen=True, kw_only=True):
    """Settings of a quantization-aware training, beside those of every training.

    Attributes:
        freeze_after: epochs after which BatchNormalization keeps its statistics.
        scheme: of the grids.
    """

    freeze_after: float | None = None
    scheme: Scheme = "litert"

    def check(self) -> None:
        """Raise `UsageError` for a setting that cannot be."""
        super().check()
        check_aware(self.scheme, self.freeze_after)


def check_aware(scheme: str, freeze_after: float | None) -> None:
    """Raise `UsageError` for settings of `aware_model` that cannot be."""
    expect_one_of("scheme", scheme, get_args(Scheme))
    if freeze_after is not None and freeze_after < 0:
        raise UsageError(f"`freeze_after` must be 0 or more epochs; got {freeze_after}")


class TrainingSummary(msgspec.Struct, frozen=True):
    """What a training did; `docs/json.md` describes the fields."""

    file: str
    size_bytes: int
    seconds: float
    peak_rss_mb: float
    scheme: str
    task: str
    metric: str
    n: int
    source: Score
    before: Score
    after: Score
    epochs: int
    best_epoch: int
    notes: tuple[str, ...]


def train_in_child(model: str, out: str, settings: dict[str, Any], on_progress: Progress) -> Any:
    """Train as the command line does, with JSON values in and out (`run_isolated`)."""
    expect_one_of("scheme", settings["scheme"], get_args(Scheme))
    given = msgspec.convert(settings, Training)
    return msgspec.to_builtins(train(Path(model), Path(out), given, on_progress))


def train(model: Path, out: Path, settings: Training, on_progress: Progress) -> TrainingSummary:
    """Make the model at `model` quantize-aware, train it and write it to `out`.

    Of the states before training and after each epoch the one with the smallest loss on the
    evaluation set is written.

    Args:
        model: a Keras 3 model of one input and one output.
        out: NAME.keras.
        settings: how to train.
        on_progress: called with (phase, done, total).

    Raises:
        UsageError: a setting that cannot be.
        ModelError: a model that cannot be read, or not be trained so.
        DataError: a set that cannot be used.
        OutputError: `out` cannot be written.
    """
    started_s = time.perf_counter()
    settings.check()
    check_out(out, [model])
    on_progress("reading the model", 0, 0)
    sets = split_sets(settings)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        scratch = Path(folder)
        case = case_of(
            open_source(model, scratch=scratch),
            sets[0],
            settings.preprocess,
            otherwise="use edgekit.quantize_aware in Python",
        )
        for data in sets:
            case.check_labels(data)
        trained, found = _fit(case, sets, settings, on_progress)
        content = keras_file(trained, scratch / "model.keras")
    write_file(out, content)
    return TrainingSummary(
        file=str(out),
        size_bytes=len(content),
        seconds=time.perf_counter() - started_s,
        peak_rss_mb=peak_rss_mb(),
        scheme=settings.scheme,
        task=case.task,
        metric=case.metric_name,
        n=len(sets[1]),
        **found,
    )


def _fit(
    case: Case, sets: tuple[Dataset, Dataset], settings: Training, on_progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """Return the trained model with its best weights, and what the summary says of it."""
    keras: Any = require("keras", "convert")
    keras.utils.set_random_seed(settings.seed)
    rows = _batches(case, sets[0], settings.batch_size, settings.seed)
    checked = _batches(case, sets[1], settings.batch_size, None)
    on_progress("evaluating the source", 0, 0)
    source = _score(case, case.source.model, checked, settings)
    on_progress("calibrating", 0, 0)
    aware, notes = aware_model(
        case, sets[0], settings.scheme, settings.freeze_after, steps=len(rows)
    )
    before = _score(case, aware, checked, settings)
    stage = Stage(settings.epochs, lambda: _compile(case, aware, settings))
    epochs, best = fit_best(aware, rows, checked, [stage], settings.patience, on_progress)
    if settings.preprocess is None and case.preprocess.size is not None:
        notes.append("no preprocess was given: frames go in as raw RGB 0..255")
    return aware, {
        "source": source,
        "before": before,
        "after": _score(case, aware, checked, settings),
        "epochs": epochs,
        "best_epoch": best,
        "notes": tuple(notes),
    }


def _batches(case: Case, data: Dataset, size: int, seed: int | None) -> Any:
    """Return a labelled set as Keras reads it."""

    def make(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        few = chosen(data, rows)
        return case.inputs(few), case.targets(few)

    return batches(make, len(data), size, seed)


def aware_model(
    case: Case, data: Dataset, scheme: Scheme, freeze_after: float | None, *, steps: int
) -> tuple[Any, list[str]]:
    """Return the case's model made quantize-aware, and what people should know about it.

    Args:
        case: says the model and how samples become its input.
        data: calibrates the first ranges.
        scheme: of the grids.
        freeze_after: epochs after which BatchNormalization keeps its statistics.
        steps: of an epoch.
    """
    few = model_inputs(subset(data, MOST_SAMPLES), case.preprocess, case.source.inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        aware = quantize_aware(
            case.source.model,
            calibration=few,
            scheme=scheme,
            freeze_after=None if freeze_after is None else round(freeze_after * steps),
        )
    return aware, [str(w.message) for w in caught if w.category is UserWarning]


def _compile(case: Case, model: Any, settings: Training) -> None:
    adam = require("keras", "convert").optimizers.Adam(settings.learning_rate)
    model.compile(adam, case.loss(), metrics=[case.metric()])


def _score(case: Case, model: Any, checked: Any, settings: Training) -> Score:
    """Compile a model and evaluate it."""
    _compile(case, model, settings)
    loss, metric = model.evaluate(checked, verbose=0)
    return Score(float(loss), float(metric))
