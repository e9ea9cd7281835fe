"""Quantization-aware training of the plain supervised case: what `edgekit qat` does."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np

from edgekit.atomic import output_errors, write_file
from edgekit.converters.isolated import Progress
from edgekit.converters.quantize.aware.case import Case, batches_of, case_of, chosen
from edgekit.converters.quantize.aware.observe import MOST_SAMPLES
from edgekit.converters.quantize.aware.rewrite import quantize_aware
from edgekit.converters.quantize.ranges import Scheme
from edgekit.converters.samples import model_inputs, subset
from edgekit.converters.sources import open_source
from edgekit.data import Dataset, load_data
from edgekit.errors import DataError, UsageError, expect_one_of, require
from edgekit.profiling.latency import peak_rss_mb
from edgekit.specs import Preprocess


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a training.

    Attributes:
        data: path of a labelled set, as `load_data` takes it.
        eval_data: path of the labelled set that tells when to stop; None: a share of `data`.
        held_out: that share, 0..1.
        epochs: most passes over `data`.
        batch_size: samples a step.
        learning_rate: of Adam.
        patience: epochs without a smaller loss after which it stops.
        freeze_after: epochs after which BatchNormalization keeps its statistics.
        scheme: of the grids.
        preprocess: how frames become the model's input, as `convert` takes it.
        seed: of everything random.
    """

    data: str
    eval_data: str | None = None
    held_out: float = 0.1
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-4
    patience: int = 3
    freeze_after: float | None = None
    scheme: Scheme = "litert"
    preprocess: str | None = None
    seed: int = 0

    def check(self) -> Training:
        """Return this, or raise `UsageError` for a setting that cannot be."""
        expect_one_of("scheme", self.scheme, get_args(Scheme))
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be at least 1; got {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            raise UsageError(f"`held_out` must be a share between 0 and 1; got {self.held_out}")
        if not 0 < self.learning_rate < 1:
            raise UsageError(
                f"`learning_rate` must be in 0..1, like 1e-4; got {self.learning_rate}"
            )
        if self.freeze_after is not None and self.freeze_after < 0:
            raise UsageError(f"`freeze_after` must be 0 or more epochs; got {self.freeze_after}")
        if self.seed < 0:
            raise UsageError(f"`seed` must be 0 or more; got {self.seed}")
        if self.preprocess is not None:
            Preprocess.parse(self.preprocess)
        return self


class Score(msgspec.Struct, frozen=True):
    """Loss and metric on the evaluation set."""

    loss: float
    metric: float


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
    _check_destination(out, model)
    on_progress("reading the model", 0, 0)
    sets = _sets(settings)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        scratch = Path(folder)
        case = case_of(open_source(model, scratch=scratch), sets[0], settings.preprocess)
        for data in sets:
            case.check_labels(data)
        trained, found = _fit(case, sets, settings, on_progress)
        content = _save(trained, scratch / "model.keras")
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


def _check_destination(out: Path, model: Path) -> None:
    if out.suffix != ".keras":
        raise UsageError(f"`output` must be NAME.keras; got {str(out)!r}")
    if out.resolve() == model.resolve():
        raise UsageError(f"`output` {out} is the float model itself; choose another name")
    with output_errors(out):
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder")
        with tempfile.TemporaryFile(dir=out.parent):
            pass  # it can be written there: known now, not after hours of training


def _sets(settings: Training) -> tuple[Dataset, Dataset]:
    """Return the set to train on and the one to evaluate on."""
    data = load_data(settings.data)
    data.labelled()
    if settings.eval_data is not None:
        evaluation = load_data(settings.eval_data)
        evaluation.labelled()
        return data, evaluation.with_labels_of(data.classes)
    held_out = round(settings.held_out * len(data))
    if not 0 < held_out < len(data):
        raise DataError(
            f"{data.name} has {len(data)} samples, of which {settings.held_out:g} cannot be held "
            "out for evaluation; give more, or --eval-data"
        )
    order = np.random.default_rng(settings.seed).permutation(len(data))
    return chosen(data, order[held_out:]), chosen(data, order[:held_out])


def _fit(
    case: Case, sets: tuple[Dataset, Dataset], settings: Training, on_progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """Return the trained model with its best weights, and what the summary says of it."""
    keras: Any = require("keras", "convert")
    keras.utils.set_random_seed(settings.seed)
    rows = batches_of(case, sets[0], settings.batch_size, settings.seed)
    checked = batches_of(case, sets[1], settings.batch_size, None)
    on_progress("evaluating the source", 0, 0)
    float_model = case.source.model
    source = _score(case, float_model, checked, settings)
    on_progress("calibrating", 0, 0)
    aware, notes = _quantize_aware(case, sets[0], settings, len(rows))
    before = _score(case, aware, checked, settings)
    untrained = aware.get_weights()
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=settings.patience, restore_best_weights=True
    )
    losses = aware.fit(
        rows,
        validation_data=checked,
        epochs=settings.epochs,
        verbose=0,
        callbacks=[stop, _told(on_progress, settings.epochs, len(rows))],
    ).history["val_loss"]
    best = int(np.argmin([before.loss, *np.nan_to_num(losses, nan=np.inf)]))
    if best == 0:
        aware.set_weights(untrained)
    after = _score(case, aware, checked, settings)
    found = {"source": source, "before": before, "after": after, "notes": notes}
    return aware, found | {"epochs": len(losses), "best_epoch": best}


def _quantize_aware(
    case: Case, data: Dataset, settings: Training, steps: int
) -> tuple[Any, tuple[str, ...]]:
    """Return the quantize-aware model, and what people should know about it."""
    few = model_inputs(subset(data, MOST_SAMPLES), case.preprocess, case.source.inputs)
    freeze_after = settings.freeze_after
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        aware = quantize_aware(
            case.source.model,
            calibration=few,
            scheme=settings.scheme,
            freeze_after=None if freeze_after is None else round(freeze_after * steps),
        )
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    if settings.preprocess is None and case.preprocess.size is not None:
        notes.append("no preprocess was given: frames go in as raw RGB 0..255")
    return aware, tuple(notes)


def _score(case: Case, model: Any, batches: Any, settings: Training) -> Score:
    """Compile a model and evaluate it."""
    adam = require("keras", "convert").optimizers.Adam(settings.learning_rate)
    model.compile(adam, case.loss(), metrics=[case.metric()])
    loss, metric = model.evaluate(batches, verbose=0)
    return Score(float(loss), float(metric))


def _told(on_progress: Progress, epochs: int, steps: int) -> Any:
    """Return a callback of Keras that passes the progress on."""
    keras: Any = require("keras", "convert")

    class Told(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._phase = f"epoch {epoch + 1} of {epochs}"

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            on_progress(self._phase, batch + 1, steps)

    return Told()


def _save(model: Any, path: Path) -> bytes:
    """Return the content of a `.keras` file of the model without the state of its training."""
    keras: Any = require("keras", "convert")
    keras.Model(model.inputs[0], model.outputs[0], name=model.name).save(path)
    return path.read_bytes()
