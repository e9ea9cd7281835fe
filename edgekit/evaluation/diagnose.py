"""Whether a bundle's preprocessing is what its model was trained with: `edgekit diagnose`.

Wrong preprocessing fails silently: the answers are merely worse. So usual preprocessings are tried
on a labelled set, first all of them on few samples, then the best on more; what differs between
the best and the declared one is kept only where each difference by itself is confirmed on samples
that the search did not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from edgekit.errors import UsageError
from edgekit.evaluation.suspects import (
    AXES,
    describe,
    explain,
    other_resizes,
    other_values,
    with_axis_of,
)
from edgekit.evaluation.trials import Bench, BundleRunner, OnTrial, Runner, Trial
from edgekit.runtime.model import Model
from edgekit.specs import Preprocess, Task, TensorSpec


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        axis: ``values``, ``color``, ``resize``, ``interpolation`` or ``labels``.
        declared: what the bundle says.
        found: what the model wants.
        explanation: a sentence for people.
    """

    axis: str
    declared: str
    found: str
    explanation: str


class Diagnosis(msgspec.Struct, frozen=True):
    """What `diagnose` found; `docs/json.md` describes the fields."""

    task: Task
    metric: str
    declared: Trial
    found: Trial
    faults: tuple[Fault, ...]
    untold: tuple[str, ...]
    trials: tuple[Trial, ...]


def diagnose(
    model: Model, data: Dataset, runner: Runner | None = None, on_trial: OnTrial | None = None
) -> Diagnosis:
    """Return which preprocessing suits `model` best, and what is wrong with the declared one.

    Args:
        model: an opened bundle.
        data: labelled pictures.
        runner: what to try the preprocessings on, by default the bundle's own model. A quantized
            one knows only the range of inputs that it was calibrated for; its source knows all.
        on_trial: told the phase, the preprocessings tried and how many there are.

    Raises:
        DataError: no labels, or samples that are no pictures.
        UsageError: a model that takes no picture.
    """
    manifest = model.bundle.manifest
    if manifest.preprocess.size is None or len(model.backend.inputs) > 1:
        raise UsageError(
            "diagnose needs a model that takes one picture; this one's inputs are "
            f"{[list(spec.shape) for spec in model.backend.inputs]}, and arrays are no pictures to "
            "prepare in other ways"
        )
    data = data.with_labels_of(model.bundle.labels)
    bench = Bench(
        runner or BundleRunner(model),
        data,
        manifest.task,
        manifest.postprocess,
        on_trial or (lambda phase, done, total: None),
    )
    return _diagnose(bench, manifest.preprocess, model.bundle.labels)


def _diagnose(bench: Bench, declared: Preprocess, labels: Sequence[str]) -> Diagnosis:
    first, second, confirm = bench.samples()
    faults: list[Fault] = []
    order = bench.other_order(declared, second)
    if order is not None:
        faults.append(_order_fault(order, labels))
        bench.labels = order[bench.labels]
    best, resizes, untestable = _search(bench, declared, first, second)
    best = _without_unconfirmed(bench, declared, best, confirm)
    faults += [
        Fault(axis, describe(axis, declared), describe(axis, best), explain(axis, declared, best))
        for axis in AXES
        if with_axis_of(axis, best, declared) != best
    ]
    return Diagnosis(
        task=bench.task,
        metric=bench.metric,
        declared=bench.trial(declared, confirm),
        found=bench.trial(best, confirm),
        faults=tuple(faults),
        untold=_untold(bench, declared, best, confirm, resizes, untestable),
        trials=tuple(sorted(bench.trials.values(), key=lambda t: (t.n, t.score), reverse=True)),
    )


def _search(
    bench: Bench, declared: Preprocess, first: NDArray[np.intp], second: NDArray[np.intp]
) -> tuple[Preprocess, list[Preprocess], list[Preprocess]]:
    """Return the best preprocessing, all ways of resizing that differ, and what was not testable.

    Resizing is tried with the declared values too: where it is what is wrong, the values that
    seem best before it is mended may be any.
    """
    values, untestable = bench.testable(_unique([declared, *other_values(declared)]))
    best = bench.best("values and colours", values, first, second)
    resizes = bench.different(_unique([declared, *other_resizes(declared)]), first)
    if len(resizes) > 1:
        combined = [_resized(p, resized) for p in _unique([declared, best]) for resized in resizes]
        best = bench.best("resizing", combined, first, second)
        if _resized(declared, best) != declared:
            values, _ = bench.testable([best, *(_resized(p, best) for p in values)])
            best = bench.best("values and colours", _unique(values), first, second)
    return best, resizes, untestable


def _resized(preprocess: Preprocess, other: Preprocess) -> Preprocess:
    """Return `preprocess` with the resizing of `other`."""
    return with_axis_of("interpolation", with_axis_of("resize", preprocess, other), other)


def _unique(preprocesses: Iterable[Preprocess]) -> list[Preprocess]:
    return list(dict.fromkeys(preprocesses))


def _without_unconfirmed(
    bench: Bench, declared: Preprocess, best: Preprocess, confirm: NDArray[np.intp]
) -> Preprocess:
    """Return `best` with the declared setting on each axis where the other is not clearly better.

    The least likely fault is looked at first, so that it does not stay for another one's sake.
    """
    for axis in reversed(AXES):
        plain = with_axis_of(axis, best, declared)
        if plain != best and not bench.is_better(best, plain, confirm):
            best = plain
    return best


def _order_fault(order: NDArray[np.intp], labels: Sequence[str]) -> Fault:
    def name(index: int) -> str:
        return labels[index] if index < len(labels) else str(index)

    count = len(order)
    moved = [index for index in range(count) if order[index] != index]
    shifts = {(int(order[index]) - index) % count for index in range(count)}
    form = "shifted by one" if shifts in ({1}, {count - 1}) else "in another order"
    said, found = (
        ", ".join(f"{name(i)}={j}" for i, j in pairs[:4])
        for pairs in ([(i, i) for i in moved], [(i, int(order[i])) for i in moved])
    )
    return Fault(
        "labels", said, found, f"the classes are {form}: the model's numbers are {found} …"
    )


def _untold(
    bench: Bench,
    declared: Preprocess,
    best: Preprocess,
    confirm: NDArray[np.intp],
    resizes: Sequence[Preprocess],
    untestable: Sequence[Preprocess],
) -> tuple[str, ...]:
    untold = []
    if declared.resize == "tile":
        untold.append("resize and interpolation: a bundle on tiles is tried on tiles alone")
    elif len(resizes) < 2:
        untold.append("resize and interpolation: these pictures come out the same with all of them")
    elif len({p.resize for p in resizes}) < 2:
        untold.append("resize: these pictures come out the same with all of them")
    if untestable:
        names = sorted({describe("values", p) for p in untestable})
        untold.append(
            f"values {'; '.join(names)}: the {bench.spec.dtype} input {_limit(bench.spec)}; "
            "try the source with --model"
        )
    if bench.trial(best, confirm).metric < bench.guessing + 0.05:
        untold.append(
            "what is wrong: nothing that was tried is clearly better than guessing; "
            "look at the labels, the weights and the values that were not tried"
        )
    if declared.color == "gray":
        untold.append("color: the model takes grey pictures")
    return tuple(untold)


def _limit(spec: TensorSpec) -> str:
    if spec.scale is None:
        return "cannot tell their pixels apart"
    limits = np.iinfo(spec.dtype)
    low, high = spec.dequantize(np.array([limits.min, limits.max]))
    return f"covers {low:.4g} to {high:.4g} only"
