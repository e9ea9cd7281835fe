"""The settings of a training, its loop that keeps the best state, and what it writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.atomic import output_errors
from edgekit.data import Dataset, load_data
from edgekit.errors import DataError, ModelError, UsageError, require
from edgekit.isolated import Progress
from edgekit.specs import Preprocess


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that every training has.

    Attributes:
        data: the set to train on, as `load_data` takes it.
        eval_data: the set that tells when to stop; None: a share of `data`.
        held_out: that share, 0..1.
        epochs: most passes over `data`.
        batch_size: samples a step.
        learning_rate: of Adam.
        patience: epochs without a smaller loss after which it stops.
        preprocess: how frames become the model's input, as `convert` takes it.
        seed: of everything random.
    """

    data: Any
    eval_data: Any = None
    held_out: float = 0.1
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-4
    patience: int = 3
    preprocess: str | Preprocess | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise `UsageError` for a setting that cannot be."""
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be at least 1; got {getattr(self, name)}")
        if not 0 < self.held_out < 1:
            raise UsageError(f"`held_out` must be a share between 0 and 1; got {self.held_out}")
        check_rate("learning_rate", self.learning_rate)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"`seed` must be in 0..4294967295; got {self.seed}")
        if isinstance(self.preprocess, str):
            Preprocess.parse(self.preprocess)


class Score(msgspec.Struct, frozen=True):
    """Loss and metric on the evaluation set."""

    loss: float
    metric: float


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Attributes:
        until: the epoch that it ends with, at the latest.
        begin: compiles the model for it.
    """

    until: int
    begin: Callable[[], None]


def check_rate(name: str, rate: float) -> None:
    """Raise `UsageError` for a learning rate that cannot be."""
    if not 0 < rate < 1:
        raise UsageError(f"`{name}` must be in 0..1, like 1e-4; got {rate}")


def check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Raise now if a model could not be written to `out` later, or would replace an input.

    Raises:
        UsageError: `out` is not NAME.keras, or one of `inputs`.
        OutputError: it cannot be written there.
    """
    if out.suffix != ".keras":
        raise UsageError(f"`output` must be NAME.keras; got {str(out)!r}")
    if out.resolve() in (path.resolve() for path in inputs):
        raise UsageError(f"`output` {out} is the float model itself; choose another name")
    with output_errors(out):
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder")
        with tempfile.TemporaryFile(dir=out.parent):
            pass  # it can be written there: known now, not after hours of training


def split_sets(settings: Fit) -> tuple[Dataset, Dataset]:
    """Return the set to train on and the one to evaluate on.

    Raises:
        DataError: a set that cannot be used, or of which no share can be held out.
    """
    data = load_data(settings.data)
    if settings.eval_data is not None:
        return data, load_data(settings.eval_data).with_labels_of(data.classes)
    held_out = round(settings.held_out * len(data))
    if not 0 < held_out < len(data):
        raise DataError(
            f"{data.name} has {len(data)} samples, of which {settings.held_out:g} cannot be held "
            "out for evaluation; give more, or --eval-data"
        )
    order = np.random.default_rng(settings.seed).permutation(len(data))
    return chosen(data, order[held_out:]), chosen(data, order[:held_out])


def chosen(data: Dataset, indices: NDArray[Any]) -> Dataset:
    """Return some samples of a set."""
    return msgspec.structs.replace(
        data,
        count=len(indices),
        read=lambda index: data.read(int(indices[index])),
        labels=None if data.labels is None else data.labels[indices],
    )


def batches(make: Callable[[NDArray[Any]], Any], count: int, size: int, seed: int | None) -> Any:
    """Return a set as Keras reads it, each batch made when it is needed.

    Args:
        make: indices of samples -> what Keras takes for a batch.
        count: samples of the set.
        size: samples a batch.
        seed: of the order, another one each epoch; None: the order of the set.
    """
    keras: Any = require("keras", "convert")
    random = np.random.default_rng(seed)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-count // size)

        def __getitem__(self, index: int) -> Any:
            return make(self._order[index * size : (index + 1) * size])

        def on_epoch_end(self) -> None:
            self._order = np.arange(count) if seed is None else random.permutation(count)

    return Batches()


def fit_best(
    model: Any,
    rows: Any,
    checked: Any,
    stages: Sequence[Stage],
    patience: int,
    on_progress: Progress,
) -> tuple[int, int]:
    """Train a model and leave it in its best state; return the epochs, and which was the best.

    Of the states before training and after each epoch that is the one of the smallest loss on
    `checked`; 0 stands for the state before.

    Args:
        model: of Keras.
        rows: what to train on, as `batches` gives it.
        checked: likewise, what to evaluate on.
        stages: in turn, each from the best state of the last.
        patience: epochs without a smaller loss after which a stage ends.
        on_progress: called with (phase, done, total).

    Raises:
        ModelError: the model's loss is NaN before training.
    """
    keras: Any = require("keras", "convert")
    stages[0].begin()
    losses = [float(model.evaluate(checked, verbose=0, return_dict=True)["loss"])]
    if np.isnan(losses[0]):
        raise ModelError(
            "the model's loss is NaN before training, which no training mends; look at "
            "its weights and at its preprocess"
        )
    kept = model.get_weights()
    for stage in stages:
        if stage is not stages[0]:
            stage.begin()
        stop = keras.callbacks.EarlyStopping(
            "val_loss", patience=patience, restore_best_weights=True
        )
        found = model.fit(
            rows,
            validation_data=checked,
            initial_epoch=len(losses) - 1,
            epochs=stage.until,
            verbose=0,
            shuffle=False,  # the set has an order of its own
            callbacks=[stop, _told(on_progress, stages[-1].until, len(rows))],
        ).history["val_loss"]
        found = np.nan_to_num(found, nan=np.inf).tolist()
        if min(found) < min(losses):
            kept = model.get_weights()
        losses += found
    model.set_weights(kept)
    return len(losses) - 1, int(np.argmin(losses))


def _told(on_progress: Progress, epochs: int, steps: int) -> Any:
    """Return a callback of Keras that passes the progress on."""
    keras: Any = require("keras", "convert")

    class Told(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._phase = f"epoch {epoch + 1} of {epochs}"

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            on_progress(self._phase, batch + 1, steps)

    return Told()


def keras_file(model: Any, path: Path) -> bytes:
    """Return the content of a `.keras` file of the model without the state of its training."""
    keras: Any = require("keras", "convert")
    keras.Model(model.inputs[0], model.outputs[0], name=model.name).save(path)
    return path.read_bytes()
