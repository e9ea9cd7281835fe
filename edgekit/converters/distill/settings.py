"""The settings of a distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from edgekit.converters.distill.augment import check_augment
from edgekit.converters.quantize.aware.train import check_aware
from edgekit.converters.quantize.ranges import Scheme
from edgekit.converters.training.fit import Fit, check_rate
from edgekit.errors import UsageError, expect_one_of
from edgekit.specs import Preprocess, Task

BALANCED = "balanced"


class Distillation(Fit, frozen=True, kw_only=True):
    """Settings of a distillation, beside those of every training; `distill` describes them."""

    temperature: float = 4.0
    alpha: float = 0.9
    hints: tuple[tuple[str, str], ...] = ()
    hint_weight: float = 1.0
    teacher_preprocess: str | Preprocess | None = None
    task: Task | None = None
    augment: Any = None
    class_weights: str | Mapping[int, float] | None = None
    focal: float | None = None
    clip_norm: float | None = None
    cosine: bool = False
    freeze: str | None = None
    freeze_epochs: int | None = None
    unfrozen_learning_rate: float | None = None
    qat: bool = False
    scheme: Scheme = "litert"
    freeze_after: float | None = None
    learning_rate: float = 1e-3

    def check(self) -> None:
        """Raise `UsageError` for a setting that cannot be."""
        super().check()
        check_aware(self.scheme, self.freeze_after)
        if not self.qat and (self.scheme != "litert" or self.freeze_after is not None):
            raise UsageError("`scheme` and `freeze_after` need `qat`")
        check_augment(self.augment)
        if self.task is not None:
            expect_one_of("task", self.task, get_args(Task))
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"`alpha` must be the teacher's share, 0 to 1; got {self.alpha}")
        for name in ("temperature", "hint_weight", "focal", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise UsageError(f"`{name}` must be above 0; got {value}")
        if isinstance(self.teacher_preprocess, str):
            Preprocess.parse(self.teacher_preprocess)
        if isinstance(self.class_weights, str):
            expect_one_of("class_weights", self.class_weights, [BALANCED])
        elif self.class_weights is not None and not all(
            weight >= 0 for weight in self.class_weights.values()
        ):
            raise UsageError(f"`class_weights` must be 0 or more; got {self.class_weights}")
        self._check_freezing()

    def _check_freezing(self) -> None:
        epochs = self.freeze_epochs
        if epochs is not None and not 1 <= epochs <= self.epochs:
            raise UsageError(f"`freeze_epochs` must be in 1..{self.epochs}; got {epochs}")
        if self.unfrozen_learning_rate is not None:
            check_rate("unfrozen_learning_rate", self.unfrozen_learning_rate)
            if epochs is None:
                raise UsageError("`unfrozen_learning_rate` needs `freeze_epochs`")
