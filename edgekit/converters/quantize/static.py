"""Make a Keras model ready for int8: fold, equalize, round, correct."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize import INT8_STEPS
from edgekit.converters.quantize.equalize import equalize, groups_of
from edgekit.converters.quantize.fold import fold
from edgekit.converters.quantize.graph import Graph, Unsupported, flatten, run
from edgekit.converters.quantize.linear import is_linear, weights_of
from edgekit.converters.quantize.walk import (
    MEMORY_LIMIT,
    Progress,
    Samples,
    channel_ranges,
    compensate,
    draw,
)
from edgekit.converters.sources.graph import FrozenGraph, one_line
from edgekit.errors import EdgeKitError

Calibration = Callable[[], Iterator[tuple[NDArray[Any], ...]]]

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Prepared:
    """A model that loses less in int8.

    Attributes:
        graph: its private copy; None: the model was left as it is, and `notes` says why.
        notes: what was done, and what was left as it was and why, for people.
        weights: kernel and bias of each linear layer as they were before they were rounded and
            corrected, by the layer's name.
    """

    graph: Graph | None
    notes: tuple[str, ...]
    weights: Mapping[str, tuple[NDArray[Any], NDArray[Any]]] = field(default_factory=dict)


def prepare_static(
    source: FrozenGraph,
    samples: Calibration | None,
    steps: Sequence[str] = INT8_STEPS,
    on_progress: Progress | None = None,
) -> Prepared:
    """Return a private copy of a Keras model that loses less when it is converted to int8.

    BatchNormalization is folded; then come `steps`. Whatever cannot be handled stays as it is and
    is named in the notes; a model that cannot be copied gives no graph, and no exception.

    Args:
        source: with its Keras 3 model, of which nothing is touched.
        samples: starts a pass over the calibration set, one tuple of inputs (batch 1) a sample;
            None: only for no steps.
        steps: some of `INT8_STEPS`.
        on_progress: called with (phase, layers done, layers).

    Raises:
        EdgeKitError: what `samples` raises.
    """
    try:
        return _prepare(source, samples, steps, on_progress or (lambda phase, done, total: None))
    except EdgeKitError:
        raise
    except Exception as error:  # layers may do anything: then the plain conversion still works
        what = one_line(error) if isinstance(error, Unsupported) else f"{error!r}"
        return Prepared(None, (f"converted as it is, without {_listed(steps)}: {what}",))


def _prepare(
    source: FrozenGraph,
    samples: Calibration | None,
    steps: Sequence[str],
    on_progress: Progress,
) -> Prepared:
    flat, shared = flatten(source.model, source.inputs)
    graph, unfolded = fold(flat)
    if not steps or samples is None:
        return Prepared(graph, (*shared, *unfolded))
    drawn = draw(graph, samples())
    notes = [_done(steps, drawn), *shared, *unfolded]
    _expect_same(source, graph, drawn, "folding")
    if "equalize" in steps:
        is_of_use = any(group.readers and not group.pinned for group in groups_of(graph))
        ranges = channel_ranges(graph, drawn, on_progress) if is_of_use else {}
        notes += equalize(graph, ranges)
        _expect_same(source, graph, drawn, "equalization")
    weights = {}
    if "round" in steps or "correct" in steps:
        linear = [step.layer for step in graph.steps if is_linear(step)]
        weights = {layer.name: weights_of(layer) for layer in linear}
        rounds, corrects = "round" in steps, "correct" in steps
        notes += compensate(graph, drawn, rounds=rounds, corrects=corrects, on_progress=on_progress)
    return Prepared(graph, tuple(notes), weights)


def _listed(steps: Sequence[str]) -> str:
    return ", ".join(("folding", *steps))


def _done(steps: Sequence[str], samples: Samples) -> str:
    done = f"before int8: {', '.join(steps)}, on {samples.kept} calibration samples"
    if samples.kept == samples.seen:
        return done
    return (
        f"{done} of {samples.seen}, since the activations of more do not fit in "
        f"{MEMORY_LIMIT >> 20} MiB; ranges come from all"
    )


def _expect_same(source: FrozenGraph, graph: Graph, samples: Samples, what: str) -> None:
    """Refuse a copy that does not answer as the source does, whatever the cause."""
    sample = [batches[0][:1] for batches in samples.batches]
    for wanted, given in zip(source.predict(sample), run(graph, sample), strict=True):
        scale = max(float(np.abs(wanted).max(initial=0)), 1e-6)
        if (
            wanted.shape != given.shape
            or np.abs(wanted - given).max(initial=0) > _TOLERANCE * scale
        ):
            raise Unsupported(f"after {what} its copy does not answer as the model does")
