"""What a batch of a distillation holds, and what the student's losses are.

After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, and Romero et
al., "FitNets: Hints for Thin Deep Nets", ICLR 2015. With shares q of the teacher and p of the
student, both softened by the temperature T, a sample's loss is

    (1 - alpha) * labelled loss + alpha * T² * KL(q || p) + hint_weight * Σ hint losses

On the last axis and for each pixel or step, if there are such; for a regression the middle term is
the mean square of teacher - student. A hint's loss is the mean square of teacher's features -
adapted student's, divided by the mean square of the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.distill.augment import Augment
from edgekit.converters.distill.settings import BALANCED, Distillation
from edgekit.converters.distill.teachers import Ensemble, Remembered, feature_of
from edgekit.converters.training.case import Case
from edgekit.converters.training.fit import batches, chosen
from edgekit.data import Dataset
from edgekit.errors import ModelError, UsageError, require

Array = NDArray[Any]
_LEAST = 1e-30
_ONE_UNIT_LEAST = 1e-7
_IGNORED_CLASS = 255


@dataclass(frozen=True)
class Term:
    """One part of the loss: an output of the pupil, and what it is compared with."""

    output: Any
    loss: Any
    weight: float


@dataclass(frozen=True)
class Lesson:
    """How a student learns.

    Attributes:
        pupil: the student's layers with one output a term; what is trained.
        terms: labels, soft targets and hints, as far as they are there, in this order.
        labelled: whether the first term is that of the labels.
    """

    pupil: Any
    terms: tuple[Term, ...]
    labelled: bool

    def compile(self, rate: Any, clip_norm: float | None) -> None:
        """Make the pupil ready to be trained.

        Args:
            rate: learning rate, or a schedule of Keras.
            clip_norm: longest gradient.
        """
        adam = require("keras", "convert").optimizers.Adam(rate, global_clipnorm=clip_norm)
        self.pupil.compile(
            adam,
            loss=[term.loss for term in self.terms],
            loss_weights=[term.weight for term in self.terms],
            jit_compile=False,  # XLA is several times slower on a CPU
        )


def lesson_of(
    case: Case, student: Any, ensemble: Ensemble, few: Dataset, settings: Distillation
) -> Lesson:
    """Return the lesson of a student.

    Args:
        case: what its output means.
        student: of Keras; its layers are shared with the pupil.
        ensemble: who teaches.
        few: samples that tell how large features are.
        settings: of the distillation; its alpha is 1 for sets without labels.

    Raises:
        ModelError: a hint's layers do not fit each other.
    """
    keras: Any = require("keras", "convert")
    output, terms = student.outputs[0], []
    labelled = settings.alpha < 1
    if labelled:
        terms.append(Term(output, case.loss(settings.focal), 1 - settings.alpha))
    if settings.alpha > 0:
        soft = keras.layers.Identity(name="edgekit_soft_targets")(output)
        terms.append(Term(soft, soft_loss(case, settings.temperature), settings.alpha))
    features = ensemble.answer(few)[1:]
    for (_, layer), feature in zip(settings.hints, features, strict=True):
        guided = _adapted(feature_of(student, layer, "the student"), feature.shape, layer)
        size = max(float(np.square(feature, dtype=np.float64).mean()), 1e-12)
        terms.append(Term(guided, "mean_squared_error", settings.hint_weight / size))
    return Lesson(
        keras.Model(student.inputs[0], [term.output for term in terms]), tuple(terms), labelled
    )


def _adapted(tensor: Any, wanted: tuple[int, ...], layer: str) -> Any:
    """Return a student's features in the form of the teacher's, by a layer that learns to."""
    layers = require("keras", "convert").layers
    given = tuple(tensor.shape)
    is_grid = len(given) == len(wanted) == 4 and None not in given[1:]
    if len(given) != len(wanted) or (not is_grid and given[1:-1] != wanted[1:-1]):
        raise ModelError(
            f"the hint for the student's layer {layer!r} does not fit: it gives "
            f"{[None, *given[1:]]}, the teacher's {[None, *wanted[1:]]}"
        )
    # Of a picture's features this is a 1x1 convolution.
    tensor = layers.Dense(wanted[-1], name=f"edgekit_hint_{layer}")(tensor)
    if given[1:-1] != wanted[1:-1]:
        tensor = layers.Resizing(*wanted[1:3], name=f"edgekit_resized_{layer}")(tensor)
    return tensor


def soft_loss(case: Case, temperature: float) -> Callable[[Any, Any], Any]:
    """Return the loss between a teacher's softened shares and a student's output."""
    keras: Any = require("keras", "convert")
    ops, losses = keras.ops, keras.losses

    def entropy(shares: Any) -> Any:
        return -ops.sum(shares * ops.log(ops.maximum(shares, _LEAST)), axis=-1)

    def of_classes(shares: Any, outputs: Any) -> Any:
        if not case.gives_logits:
            outputs = ops.log(ops.maximum(outputs, _LEAST))
        cross = losses.categorical_crossentropy(shares, outputs / temperature, from_logits=True)
        return temperature**2 * (cross - entropy(shares))

    def of_one_unit(shares: Any, outputs: Any) -> Any:
        if not case.gives_logits:
            outputs = ops.clip(outputs, _ONE_UNIT_LEAST, 1 - _ONE_UNIT_LEAST)
            outputs = ops.log(outputs) - ops.log(1 - outputs)
        cross = losses.binary_crossentropy(shares, outputs / temperature, from_logits=True)
        return temperature**2 * (cross - entropy(shares) - entropy(1 - shares))

    def of_values(values: Any, outputs: Any) -> Any:
        return losses.mean_squared_error(values, outputs)

    if case.task == "regression":
        return of_values
    return of_one_unit if case.is_binary else of_classes


def agreement(case: Case) -> Any:
    """Return the share of answers that are the teachers', or for values the distance."""
    keras: Any = require("keras", "convert")
    if case.task == "regression":
        return keras.metrics.MeanAbsoluteError()
    threshold = 0.0 if case.gives_logits else 0.5

    def same_answer(shares: Any, outputs: Any) -> Any:
        ops = keras.ops
        if case.is_binary:
            return ops.cast((shares > 0.5) == (outputs > threshold), "float32")
        same = ops.argmax(shares, axis=-1) == ops.argmax(outputs, axis=-1)
        return ops.cast(same, "float32")

    return same_answer


def lesson_batches(
    case: Case,
    lesson: Lesson,
    ensemble: Ensemble,
    data: Dataset,
    settings: Distillation,
    *,
    seed: int | None,
    augment: Augment | None = None,
    weights: Array | None = None,
) -> Any:
    """Return a set as the pupil reads it: inputs, what each term is compared with, weights.

    Args:
        case: says the forms of inputs and labels.
        lesson: says the terms.
        ensemble: answers once a batch; to a set that is not augmented, once.
        data: the set.
        settings: of the distillation.
        seed: of the order; None: that of the set.
        augment: changes a batch before anyone sees it.
        weights: one a class.
    """
    asks = settings.alpha > 0 or bool(settings.hints)
    remembered = Remembered(ensemble, data) if asks and augment is None else None

    def make(rows: Array) -> tuple[Any, ...]:
        few = chosen(data, rows)
        few = few if augment is None else augment(few)
        x = case.inputs(few)
        wanted: list[Array] = [case.targets(few)] if lesson.labelled else []
        if asks:
            answers = remembered.answer(few, rows, x) if remembered else ensemble.answer(few, x)
            wanted += answers if settings.alpha > 0 else answers[1:]
        if weights is None or not lesson.labelled:
            return x, tuple(wanted)
        ones = [np.ones(array.shape[:-1], np.float32) for array in wanted[1:]]
        return x, tuple(wanted), (weights[few.labelled()], *ones)

    return batches(make, len(data), settings.batch_size, seed)


def class_weights(case: Case, data: Dataset, settings: Distillation) -> Array | None:
    """Return a weight for each label 0..255, or None.

    Raises:
        UsageError: the task has no classes, or a class that is weighted is not there.
    """
    given = settings.class_weights
    if given is None:
        return None
    if case.task == "regression" or data.labels is None:
        raise UsageError("`class_weights` need labels that are classes")
    classes = 2 if case.is_binary else case.output.shape[-1]
    weights = np.ones(max(_IGNORED_CLASS + 1, classes), np.float32)
    if classes <= _IGNORED_CLASS:
        weights[_IGNORED_CLASS] = 0
    if given == BALANCED:
        counts = np.bincount(data.labels.ravel(), minlength=len(weights))[:classes]
        weights[:classes] = counts.sum() / (classes * np.maximum(counts, 1))
    else:
        assert not isinstance(given, str)
        unknown = [key for key in given if not 0 <= key < classes]
        if unknown:
            raise UsageError(
                f"`class_weights` has class {unknown[0]}; the model tells {classes} classes apart"
            )
        weights[list(given)] = list(given.values())
    return weights
