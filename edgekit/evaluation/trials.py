"""How well a model does with one preprocessing or another: what `diagnose` measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from edgekit.errors import DataError
from edgekit.evaluation.metrics import metrics_for
from edgekit.runtime.model import Model
from edgekit.runtime.postprocess import NOT_SEEN, Postprocessor
from edgekit.runtime.preprocess import Preprocessor
from edgekit.runtime.tiles import Tiles
from edgekit.specs import Postprocess, Preprocess, Task, TensorSpec, class_count

OnTrial = Callable[[str, int, int], None]

_FIRST_LOOK, _SECOND_LOOK, _CONFIRM = 64, 256, 1024  # samples
_FINALISTS = 6
# Standard errors that a difference must exceed. About 50 are looked at, so that three would be met
# by chance now and then.
_SIGNIFICANT = 4.0
_LEAST_GAIN = 0.005  # of the metric, below which a difference is of no use to anybody
_LEVELS = 16  # that a quantized input must have left to see anything in a picture
_LEAST_PROBABILITY = 1e-7
_TEMPERATURES = np.geomspace(0.25, 32, 15)


class Trial(msgspec.Struct, frozen=True):
    """One preprocessing that was tried.

    Attributes:
        preprocess: as `--preprocess` takes it.
        metric: mean over the samples: accuracy, pixel accuracy, or minus the absolute error.
        score: mean log-likelihood of the right class at the temperature (Guo et al. 2017) that
            suits it best, so that a model that is too sure is not taken for one that sees nothing;
            equal to `metric` for other tasks.
        n: samples.
    """

    preprocess: str
    metric: float
    score: float
    n: int


class Runner(Protocol):
    """A model of one picture input, in any engine."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Batch 1."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Batch 1."""

    def predict(self, inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Return the outputs for one sample in the model's dtypes."""


class BundleRunner:
    """An opened bundle as a `Runner`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.inputs, self.outputs = model.backend.inputs, model.backend.outputs

    def predict(self, inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Return the outputs for one sample."""
        for index, array in enumerate(inputs):
            self._model.backend.input_buffer(index)[...] = array
        return self._model.infer()


class Bench:
    """Runs preprocessings on samples and keeps what came out."""

    def __init__(
        self,
        runner: Runner,
        data: Dataset,
        task: Task,
        postprocess: Postprocess,
        on_trial: OnTrial,
    ) -> None:
        self.labels = data.labelled()
        layout = runner.inputs[0].image_layout
        metrics_for(task, self.labels, class_count(task, runner.outputs[0], layout))
        self.task = task
        self.spec = runner.inputs[0]
        self.metric = {"classification": "accuracy", "segmentation": "pixel_accuracy"}.get(
            task, "negative_absolute_error"
        )
        self.trials: dict[str, Trial] = {}
        self._runner = runner
        self._data = data
        self._postprocess = postprocess
        self._on_trial = on_trial
        self._buffer: NDArray[Any] = np.empty(self.spec.shape, self.spec.dtype)
        self._tools: dict[Preprocess, tuple[Preprocessor, Postprocessor, Tiles | None]] = {}
        self._kept: dict[tuple[Preprocess, int], Any] = {}
        sample = data.read(0)
        if isinstance(sample, tuple) or sample.dtype != np.uint8:
            form = "several arrays" if isinstance(sample, tuple) else f"{sample.dtype} arrays"
            raise DataError(
                f"{data.name} holds {form}, which a model takes as they are; diagnose needs "
                "pictures: an image folder, or uint8 arrays"
            )

    @property
    def guessing(self) -> float:
        """Return the accuracy of naming the most frequent class always; 0 for other tasks."""
        if self.task != "classification":
            return 0.0
        return float(np.bincount(self.labels).max() / len(self.labels))

    def samples(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Return samples for a first look, a second, and to confirm; the last are others if any."""
        shuffled = np.random.default_rng(0).permutation(len(self._data))
        rest = shuffled[_SECOND_LOOK:][:_CONFIRM]
        confirm = rest if len(rest) >= _FIRST_LOOK else shuffled[:_CONFIRM]
        return shuffled[:_FIRST_LOOK], shuffled[:_SECOND_LOOK], confirm

    def testable(
        self, preprocesses: Sequence[Preprocess]
    ) -> tuple[list[Preprocess], list[Preprocess]]:
        """Return those whose numbers the input can hold, and the others."""
        tables = [Preprocessor(preprocess, self.spec).table for preprocess in preprocesses]
        seen = [len(np.unique(table)) >= _LEVELS for table in tables]
        seen[0] = True  # the declared one, with which all others are compared
        pairs = list(zip(preprocesses, seen, strict=True))
        return [p for p, ok in pairs if ok], [p for p, ok in pairs if not ok]

    def different(
        self, preprocesses: Sequence[Preprocess], samples: NDArray[np.intp]
    ) -> list[Preprocess]:
        """Return the first of those that give the same inputs."""
        found: dict[bytes, Preprocess] = {}
        for preprocess in preprocesses:
            preprocessor, content = Preprocessor(preprocess, self.spec), b""
            for index in samples[:8]:
                preprocessor(self._frame(index), self._buffer)
                content += self._buffer.tobytes()
            found.setdefault(content, preprocess)
        return list(found.values())

    def best(
        self,
        phase: str,
        preprocesses: Sequence[Preprocess],
        first: NDArray[np.intp],
        second: NDArray[np.intp],
    ) -> Preprocess:
        """Return the one of the best score: of all on `first`, then of the best on `second`."""
        total = len(preprocesses) + min(_FINALISTS, len(preprocesses))
        scores = []
        for number, preprocess in enumerate(preprocesses):
            scores.append(self.trial(preprocess, first).score)
            self._on_trial(phase, number + 1, total)
        order = np.argsort(scores)[::-1][:_FINALISTS]
        finals = []
        for number, index in enumerate(order):
            finals.append(self.trial(preprocesses[index], second).score)
            self._on_trial(phase, len(preprocesses) + number + 1, total)
        return preprocesses[int(order[int(np.argmax(finals))])]

    def is_better(self, one: Preprocess, other: Preprocess, samples: NDArray[np.intp]) -> bool:
        """Return whether `one` does clearly and usefully better than `other`, pair by pair."""
        (metric, score), (other_metric, other_score) = (
            self._measure(preprocess, samples) for preprocess in (one, other)
        )
        # Shares have a scale of their own, errors that of the labels.
        least = _LEAST_GAIN * (1.0 if self.metric.endswith("accuracy") else -other_metric.mean())
        errors = _standard_errors(metric - other_metric), _standard_errors(score - other_score)
        return bool((metric - other_metric).mean() >= least and max(errors) > _SIGNIFICANT)

    def trial(self, preprocess: Preprocess, samples: NDArray[np.intp]) -> Trial:
        """Return how well `preprocess` does on `samples`."""
        metric, score = self._measure(preprocess, samples)
        text = preprocess.as_text()
        trial = Trial(text, float(metric.mean()), float(score.mean()), len(samples))
        if text not in self.trials or self.trials[text].n < trial.n:
            self.trials[text] = trial
        return trial

    def other_order(
        self, declared: Preprocess, samples: NDArray[np.intp]
    ) -> NDArray[np.intp] | None:
        """Return the model's number for each class if its classes are clearly in another order."""
        if self.task != "classification":
            return None
        answers = np.array([int(self._scores(declared, i).argmax()) for i in samples])
        truth = self.labels[samples]
        count = int(max(answers.max(), self.labels.max())) + 1
        pairs = np.zeros((count, count), np.int64)
        np.add.at(pairs, (truth, answers), 1)
        order = pairs.argmax(1)
        occurs = pairs.sum(1) > 0
        order[~occurs] = np.flatnonzero(~occurs)
        right, explained = np.trace(pairs) / len(samples), (order[truth] == answers).mean()
        is_order = len(set(order.tolist())) == count
        return order if is_order and explained > max(0.5, 2 * right) else None

    def _frame(self, index: int) -> NDArray[Any]:
        sample = self._data.read(int(index))
        assert not isinstance(sample, tuple)
        return sample

    def _output(self, preprocess: Preprocess, index: int) -> tuple[NDArray[Any], Postprocessor]:
        if preprocess not in self._tools:
            preprocessor = Preprocessor(preprocess, self.spec)
            self._tools[preprocess] = (
                preprocessor,
                Postprocessor(
                    self.task, self._postprocess, self._runner.outputs[0], (), preprocessor
                ),
                Tiles.of(self.task, preprocess, self._runner.inputs, self._runner.outputs),
            )
        preprocessor, postprocessor, tiles = self._tools[preprocess]

        def infer(frame: NDArray[Any]) -> NDArray[Any]:
            preprocessor(frame, self._buffer)
            return self._runner.predict([self._buffer])[0]

        frame = self._frame(index)
        if tiles is None or tiles.is_one(frame):
            return infer(frame), postprocessor
        return tiles(frame, infer), postprocessor

    def _scores(self, preprocess: Preprocess, index: int) -> NDArray[np.float64]:
        """Return the probability of each class."""
        output, postprocessor = self._output(preprocess, index)
        scores = np.asarray(postprocessor.scores(output).reshape(-1), np.float64)
        if scores.size == 1:
            return np.array([1 - scores[0], scores[0]])
        if scores.min() < 0 or abs(scores.sum() - 1) > 0.1:  # logits, or scores of any kind
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        return scores

    def _measure(
        self, preprocess: Preprocess, samples: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return metric and score of each sample."""
        found = [self._outcome(preprocess, int(index)) for index in samples]
        if self.task != "classification":
            metric = np.array(found)
            return metric, metric
        logs, right = np.array(found), self.labels[samples]
        scores = [_log_likelihood(logs / temperature, right) for temperature in _TEMPERATURES]
        best = max(scores, key=lambda score: float(score.mean()))
        return (logs.argmax(1) == right).astype(np.float64), best

    def _outcome(self, preprocess: Preprocess, index: int) -> Any:
        """Return the logarithms of the classes' probabilities, or the metric, of one sample."""
        key = preprocess, index
        if key not in self._kept:
            if self.task == "classification":
                scores = self._scores(preprocess, index)
                self._kept[key] = np.log(np.maximum(scores, _LEAST_PROBABILITY))
            else:
                self._kept[key] = self._closeness(preprocess, index)
        return self._kept[key]

    def _closeness(self, preprocess: Preprocess, index: int) -> float:
        label, frame = self.labels[index], self._frame(index)
        output, postprocessor = self._output(preprocess, index)
        value: Any = postprocessor(output, frame)
        if self.task == "segmentation":
            counts = (label != NOT_SEEN) & (value.class_map != NOT_SEEN)
            return float((value.class_map == label)[counts].mean()) if counts.any() else 0.0
        return -float(np.abs(value.reshape(-1) - np.reshape(label, -1)).mean())


def _log_likelihood(logs: NDArray[np.float64], right: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logarithm of the right class's share of exp(`logs`), [n, classes] to [n]."""
    best = logs.max(1, keepdims=True)
    total = best[:, 0] + np.log(np.exp(logs - best).sum(1))
    likelihood: NDArray[np.float64] = logs[np.arange(len(logs)), right] - total
    return likelihood


def _standard_errors(differences: NDArray[np.float64]) -> float:
    """Return the mean in units of its standard error; 0 where that cannot be told."""
    if len(differences) < 2:
        return 0.0
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    mean = float(differences.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
