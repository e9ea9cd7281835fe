"""A long stream through a bundle beside its float model, which shows whether the error grows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.streaming.source import StreamSource
from edgekit.data import Dataset
from edgekit.errors import CheckFailed
from edgekit.evaluation.parity import snr_db
from edgekit.runtime.model import Frame, Model, steps_of
from edgekit.runtime.preprocess import preprocessors
from edgekit.streaming import Drift

STEPS = 1000
_BLOCKS = 20
_MOST_SEQUENCES = 200


def measure_drift(source: StreamSource, model: Model, data: Dataset) -> Drift:
    """Stream sequences, one after the other as if they were one, and compare each step.

    Args:
        source: its float model of one step is the reference.
        model: what was made of it.
        data: sequences; they are gone through again until there are enough steps.

    Raises:
        CheckFailed: an output is infinite or NaN.
    """
    frames = list(islice(_frames(data), STEPS))
    preprocess = model.bundle.manifest.preprocess
    specs = source.step.inputs[: len(source.step.inputs) - source.state_count]
    prepare = preprocessors(preprocess, specs)

    def inputs() -> Iterator[list[NDArray[Any]]]:
        for frame in frames:
            buffers = [np.empty(spec.shape, spec.dtype) for spec in specs]
            parts = frame if isinstance(frame, tuple) else (frame,)
            for one, part, out in zip(prepare, parts, buffers, strict=True):
                one(part, out)
            yield buffers

    model.reset()
    powers = np.zeros((STEPS, 2))
    largest = 0.0
    for place, (frame, wanted) in enumerate(zip(frames, source.run(inputs()), strict=True)):
        model.preprocess(frame)
        outputs = zip(model.bundle.manifest.data_outputs, model.infer(), strict=True)
        for expected, found in zip(wanted, [s.dequantize(o) for s, o in outputs], strict=True):
            error = np.asarray(expected, np.float64) - found
            if not np.isfinite(error).all():
                raise CheckFailed(f"the stream is infinite or NaN at step {place}; choose fp32")
            powers[place] += (np.asarray(expected, np.float64) ** 2).sum(), (error**2).sum()
            largest = max(largest, float(np.abs(error).max()))
    model.reset()
    blocks = powers.reshape(_BLOCKS, -1, 2).sum(axis=1)
    return Drift(
        steps=STEPS,
        snr_db=snr_db(*powers.sum(axis=0).tolist()),
        max_abs=largest,
        block_steps=STEPS // _BLOCKS,
        blocks_snr_db=tuple(snr_db(signal, noise) for signal, noise in blocks.tolist()),
    )


def _frames(data: Dataset) -> Iterator[Frame]:
    while True:
        for sample in islice(data, _MOST_SEQUENCES):
            yield from steps_of(sample)
