"""What teachers answer: once a batch, softened, and the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.sources import SourceModel
from edgekit.converters.training.case import Case, first_answers, gives_logits, stacked_inputs
from edgekit.data import Dataset
from edgekit.errors import ModelError, require
from edgekit.specs import Preprocess

Array = NDArray[Any]
_LEAST = 1e-30
_MOST_BYTES = 512 << 20
_ONE_UNIT_ENDS = (1e-7, 1 - 1e-7)


class Teacher:
    """A trained model that is asked and never changed.

    Args:
        name: for messages.
        source: the model; hints need one of Keras 3.
        data: a few samples tell whether it answers with logits.
        preprocess: how samples become its input.
        features: names of the layers whose outputs are hints.

    Attributes:
        name: as given.
        source: as given.
        form: how samples become its input.
        gives_logits: or else shares.

    Raises:
        ModelError: not one input and one output, or no such layer.
    """

    def __init__(
        self,
        name: str,
        source: SourceModel,
        data: Dataset,
        preprocess: str | Preprocess | None,
        features: Sequence[str] = (),
    ) -> None:
        self.name, self.source = name, source
        if len(source.inputs) != 1 or len(source.outputs) != 1:
            raise ModelError(
                f"teacher {name} has {len(source.inputs)} inputs and {len(source.outputs)} "
                "outputs; distillation takes models of one each"
            )
        self.form, self.few = first_answers(source, data, preprocess)
        self.gives_logits = gives_logits(source, self.few)
        self._call = self._compiled(features)

    def _compiled(self, features: Sequence[str]) -> Any:
        """Return the model as one function of a batch; None if it takes one sample at a time."""
        model = getattr(self.source, "model", None)
        if model is None:
            if features:
                raise ModelError(
                    f"hints need a teacher that Keras 3 loads; {self.name} is of kind "
                    f"{self.source.kind}"
                )
            return None
        if features:
            keras: Any = require("keras", "convert")
            hints = [feature_of(model, name, f"teacher {self.name}") for name in features]
            model = keras.Model(model.inputs[0], [model.outputs[0], *hints])
        tf: Any = require("tensorflow", "convert")
        flatten = require("keras", "convert").tree.flatten
        # XLA compiles anew for each number of samples, and is slower on a CPU.
        return tf.function(
            lambda x: flatten(model(x, training=False)),
            reduce_retracing=True,
            jit_compile=False,
            autograph=False,
        )

    def answer(self, inputs: Array) -> list[Array]:
        """Return the output and the features for a batch of inputs.

        Raises:
            ModelError: they are no finite numbers, so nothing can be learned from them.
        """
        if self._call is not None:
            answers = [np.asarray(tensor) for tensor in self._call(inputs)]
        else:
            answers = [np.concatenate([self.source.predict([one[None]])[0] for one in inputs])]
        if not all(np.isfinite(answer).all() for answer in answers):
            raise ModelError(
                f"teacher {self.name} answers with NaN or infinity; look at its weights and at "
                "its preprocess"
            )
        return answers


def feature_of(model: Any, layer: str, what: str) -> Any:
    """Return the output of a model's layer, or raise `ModelError` that names those there are."""
    found = {each.name: each for each in getattr(model, "layers", [])}
    if layer not in found:
        raise ModelError(f"{what} has no layer {layer!r}; it has {', '.join(found)}")
    try:
        output = found[layer].output
    except (AttributeError, ValueError) as error:
        raise ModelError(
            f"layer {layer!r} of {what} is used several times; choose another one for the hint"
        ) from error
    if isinstance(output, list | tuple | dict):
        raise ModelError(f"layer {layer!r} of {what} has several outputs; choose another one")
    return output


@dataclass
class Ensemble:
    """Teachers that answer together: the mean of their shares.

    Attributes:
        teachers: at least one; the first gives the hints.
        case: the student's, which says what the answers mean.
        temperature: that the answers are softened with.
    """

    teachers: Sequence[Teacher]
    case: Case
    temperature: float

    def answer(self, data: Dataset, inputs: Array | None = None) -> list[Array]:
        """Return the mean of the softened answers, and the first teacher's features.

        Args:
            data: a small set.
            inputs: of the student, for teachers that take the same.
        """
        answers = [teacher.answer(self._inputs(teacher, data, inputs)) for teacher in self.teachers]
        shares = [
            self.softened(teacher, outputs[0], self.temperature)
            for teacher, outputs in zip(self.teachers, answers, strict=True)
        ]
        return [np.asarray(np.mean(shares, axis=0), np.float32), *answers[0][1:]]

    def _inputs(self, teacher: Teacher, data: Dataset, inputs: Array | None) -> Array:
        spec, own = teacher.source.inputs[0], self.case.source.inputs[0]
        is_same = teacher.form == self.case.preprocess and spec.shape == own.shape
        if inputs is not None and is_same and spec.dtype == own.dtype:
            return inputs
        return stacked_inputs(data, teacher.form, spec)

    def softened(self, teacher: Teacher, outputs: Array, temperature: float) -> Array:
        """Return outputs of a teacher as shares at a temperature; of a regression as they are."""
        if self.case.task == "regression":
            return outputs.astype(np.float32)
        values = outputs.astype(np.float64)
        if self.case.is_binary:
            if not teacher.gives_logits:
                values = np.clip(values, *_ONE_UNIT_ENDS)
                values = np.log(values) - np.log1p(-values)
            return (1 / (1 + np.exp(np.clip(-values / temperature, -80, 80)))).astype(np.float32)
        if not teacher.gives_logits:
            values = np.log(np.maximum(values, _LEAST))
        values = np.exp((values - values.max(axis=-1, keepdims=True)) / temperature)
        return np.asarray(values / values.sum(axis=-1, keepdims=True), np.float32)


class Remembered:
    """Answers to a set that is not changed: each sample is asked for once.

    Args:
        ensemble: answers.
        data: the whole set.
    """

    def __init__(self, ensemble: Ensemble, data: Dataset) -> None:
        self._ensemble, self._count = ensemble, len(data)
        self._known = np.zeros(len(data), bool)
        self._kept: list[Array] | None = None

    def answer(self, data: Dataset, rows: Array, inputs: Array) -> list[Array]:
        """Return what `Ensemble.answer` gives for the samples `rows` of the set, `data`."""
        if self._kept is not None and self._known[rows].all():
            return [kept[rows] for kept in self._kept]
        answers = self._ensemble.answer(data, inputs)
        if self._kept is None:
            needed = sum(answer[0].nbytes for answer in answers) * self._count
            if needed > _MOST_BYTES:
                return answers  # memory is worth more than the time to ask again
            self._kept = [np.empty((self._count, *a.shape[1:]), a.dtype) for a in answers]
        for kept, answer in zip(self._kept, answers, strict=True):
            kept[rows] = answer
        self._known[rows] = True
        return answers
