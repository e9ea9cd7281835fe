"""One distillation: its models, its notes, and its order of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.converters.assemble import guess_task
from edgekit.converters.distill.augment import augmenter
from edgekit.converters.distill.lesson import (
    Lesson,
    agreement,
    class_weights,
    lesson_batches,
    lesson_of,
    soft_loss,
)
from edgekit.converters.distill.settings import Distillation
from edgekit.converters.distill.student import (
    copy_of_model,
    frozen_layers,
    heads,
    scaled,
    width_of,
)
from edgekit.converters.distill.teachers import Ensemble, Teacher
from edgekit.converters.quantize.aware.read import FLOAT_SUFFIX
from edgekit.converters.quantize.aware.train import aware_model
from edgekit.converters.samples import subset
from edgekit.converters.sources import open_source
from edgekit.converters.training.case import Case, are_shares, case_of, trainable
from edgekit.converters.training.fit import Score, Stage, batches, chosen, fit_best
from edgekit.data import Dataset
from edgekit.errors import ModelError, require
from edgekit.isolated import Progress
from edgekit.specs import Task

_FEW = 64
_AWARE_SUFFIXES = ("", FLOAT_SUFFIX, "_quantized")
_SLOWER_UNFROZEN = 0.1


class Course:
    """One distillation.

    Args:
        teachers: models or paths.
        student: a model, a path or ``width=FACTOR``.
        sets: to train on, and to evaluate on.
        settings: checked.
        scratch: a folder for models that are read.
        say: progress.

    Attributes:
        model: the student that learns.

    Raises:
        ModelError: a model that cannot be trained or asked, or two that do not fit each other.
        DataError: a set that does not fit.
    """

    def __init__(
        self,
        teachers: Sequence[Any],
        student: Any,
        sets: tuple[Dataset, Dataset],
        settings: Distillation,
        scratch: Path,
        say: Progress,
    ) -> None:
        self._sets, self._say = sets, say
        self._notes: list[str] = []
        self._settings = self._with_share(settings)
        say("reading the models", 0, 0)
        asked = [self._teacher(model, scratch, number) for number, model in enumerate(teachers, 1)]
        self._case = self._case_of(student, asked, scratch)
        for one in asked:
            _check_answers(one, self._case)
        self._ensemble = Ensemble(asked, self._case, self._settings.temperature)
        for data in sets:
            if data.labels is not None:
                self._case.check_labels(data)
        self.model = self._trainee()

    def run(self) -> dict[str, Any]:
        """Train; return what the summary says of it."""
        settings, (data, checked) = self._settings, self._sets
        lesson = lesson_of(self._case, self.model, self._ensemble, subset(data, _FEW), settings)
        rows, judged = self._batches(lesson)
        self._say("evaluating", 0, 0)
        score = self._scorer()
        teacher, before = self._teachers_score(), score()
        stages, frozen = self._stages(lesson, len(rows))
        was = [(layer, layer.trainable) for layer in frozen]
        epochs, best = fit_best(lesson.pupil, rows, judged, stages, settings.patience, self._say)
        for layer, value in was:
            layer.trainable = value
        by_answers = checked.labels is None and self._case.task != "regression"
        network = getattr(self._ensemble.teachers[0].source, "model", None)
        return {
            "task": self._case.task,
            "metric": "agreement" if by_answers else self._case.metric_name,
            "n": len(checked),
            "parameters": self.model.count_params(),
            "teacher_parameters": None if network is None else network.count_params(),
            "teacher": teacher,
            "before": before,
            "after": score(),
            "epochs": epochs,
            "best_epoch": best,
            "notes": tuple(self._notes),
        }

    def _with_share(self, settings: Distillation) -> Distillation:
        """Return the settings with alpha as the labels allow it."""
        data, checked = self._sets
        if data.labels is None:
            if settings.alpha < 1:
                self._notes.append(f"{data.name} has no labels: the loss is the teacher's alone")
            return msgspec.structs.replace(settings, alpha=1.0)
        if settings.alpha < 1:
            checked.labelled()
        return settings

    def _teacher(self, model: Any, scratch: Path, number: int) -> Teacher:
        settings = self._settings
        name = Path(model).name if isinstance(model, str | Path) else f"{number} in memory"
        form = settings.teacher_preprocess or settings.preprocess
        # Hints are those of the first teacher.
        layers = [layer for layer, _ in settings.hints] if number == 1 else []
        teacher = Teacher(name, open_source(model, scratch=scratch), self._sets[0], form, layers)
        if form is None and teacher.form.size is not None:
            self._notes.append(
                f"no preprocess was given: frames go into teacher {name} as raw RGB 0..255"
            )
        return teacher

    def _case_of(self, student: Any, teachers: Sequence[Teacher], scratch: Path) -> Case:
        """Return what the student's output means, for labels or else for the teachers."""
        first, settings = teachers[0], self._settings
        width = width_of(student) if isinstance(student, str) else None
        if width is not None:
            student = scaled(trainable(first.source).model, width)
        elif not isinstance(student, str | Path):
            student = copy_of_model(student)
        source = open_source(student, scratch=scratch)
        labelled = next((data for data in self._sets if data.labels is not None), None)
        task = settings.task or (None if labelled else _task_of(first))
        case = case_of(
            source,
            labelled or self._sets[0],
            settings.preprocess,
            otherwise="train it in Python, with the teacher's answers as labels",
            task=task,
        )
        if settings.preprocess is None and case.preprocess.size is not None:
            self._notes.append(
                "no preprocess was given: frames go into the student as raw RGB 0..255"
            )
        for teacher in teachers:
            kind = "logits" if teacher.gives_logits else "probabilities"
            if case.task == "regression":
                kind = "values"
            self._notes.append(f"teacher {teacher.name} answers with {kind}")
        return case

    def _trainee(self) -> Any:
        """Return the student, quantize-aware if that is wanted."""
        settings, case = self._settings, self._case
        if not settings.qat:
            return case.source.model
        self._say("calibrating", 0, 0)
        steps = -(-len(self._sets[0]) // settings.batch_size)
        aware, notes = aware_model(
            case, self._sets[0], settings.scheme, settings.freeze_after, steps=steps
        )
        self._notes += notes
        return aware

    def _batches(self, lesson: Lesson) -> tuple[Any, Any]:
        """Return what the pupil trains on and what it is judged by."""
        settings, case, (data, checked) = self._settings, self._case, self._sets
        masks = lesson.labelled and case.task == "segmentation"
        weights = None
        if settings.class_weights is not None:
            weights = class_weights(case, data, settings)
        rows = lesson_batches(
            case,
            lesson,
            self._ensemble,
            data,
            settings,
            seed=settings.seed,
            augment=augmenter(settings.augment, settings.seed, masks=masks),
            weights=weights,
        )
        return rows, lesson_batches(
            case, lesson, self._ensemble, checked, settings, seed=None, weights=weights
        )

    def _stages(self, lesson: Lesson, steps: int) -> tuple[list[Stage], list[Any]]:
        """Return the parts of the training, and the layers that are frozen in the first."""
        settings = self._settings

        def stage(first: int, until: int, rate: float, frozen: Sequence[Any], free: bool) -> Stage:
            def begin() -> None:
                schedules = require("keras", "convert").optimizers.schedules
                for layer in frozen:
                    layer.trainable = free
                falling = schedules.CosineDecay(rate, max(1, (until - first) * steps))
                lesson.compile(falling if settings.cosine else rate, settings.clip_norm)

            return Stage(until, begin)

        rate, epochs, until = settings.learning_rate, settings.epochs, settings.freeze_epochs
        if settings.freeze is None and until is None:
            return [stage(0, epochs, rate, (), True)], []
        last = [
            head.name + end for head in heads(self._case.source.model) for end in _AWARE_SUFFIXES
        ]
        frozen = frozen_layers(self.model, settings.freeze, last)
        stages = [stage(0, until or epochs, rate, frozen, False)]
        if until is not None and until < epochs:
            later = settings.unfrozen_learning_rate or rate * _SLOWER_UNFROZEN
            movable = [layer for layer in frozen if layer.trainable]
            stages.append(stage(until, epochs, later, movable, True))
        return stages, frozen

    def _scorer(self) -> Callable[[], Score]:
        """Compile the student; return what evaluates it by labels, or by the teachers' answers."""
        case, data = self._case, self._sets[1]
        loss, metric = case.loss(), case.metric()
        if data.labels is None:
            loss, metric = soft_loss(case, 1.0), agreement(case)
        sharp = dataclasses.replace(self._ensemble, temperature=1.0)

        def make(rows: NDArray[Any]) -> tuple[Any, Any]:
            few = chosen(data, rows)
            x = case.inputs(few)
            return x, case.targets(few) if data.labels is not None else sharp.answer(few, x)[0]

        checked = batches(make, len(data), self._settings.batch_size, None)
        self.model.compile("sgd", loss, metrics=[metric], jit_compile=False)
        return lambda: Score(*map(float, self.model.evaluate(checked, verbose=0)))

    def _teachers_score(self) -> Score | None:
        """Return how well the teachers do by the labels, if there are any."""
        data = self._sets[1]
        if data.labels is None:
            return None
        case = dataclasses.replace(self._case, gives_logits=False)
        sharp = dataclasses.replace(self._ensemble, temperature=1.0)
        loss, metric, losses = case.loss(), case.metric(), []
        order = np.arange(len(data))
        for start in range(0, len(data), self._settings.batch_size):
            few = chosen(data, order[start : start + self._settings.batch_size])
            wanted, given = case.targets(few), sharp.answer(few)[0]
            losses.append(float(loss(wanted, given)) * len(few))
            metric.update_state(wanted, given)
        return Score(sum(losses) / len(data), float(metric.result()))


def _task_of(teacher: Teacher) -> Task:
    """Tell without labels what a teacher's answers mean."""
    spec = teacher.source.outputs[0]
    task = guess_task(spec, teacher.few, None, teacher.form.size is not None)
    is_told = not teacher.gives_logits or all(map(are_shares, teacher.few))
    return task if is_told or task != "sequence" else "regression"


def _check_answers(teacher: Teacher, case: Case) -> None:
    """Raise `ModelError` if the student cannot learn to answer as this teacher."""
    given, wanted = teacher.source.outputs[0].shape, case.output.shape
    if given == wanted:
        return
    raise ModelError(
        f"teacher {teacher.name} answers with {[None, *given[1:]]}, the student with "
        f"{[None, *wanted[1:]]}; both need the same classes and size"
    )
