"""One architecture to one format in one precision, and how near it came.

Parity is judged on samples that calibrated nothing, against the Keras model itself. Of several
outputs the worst counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import edgekit
from benchmarks.zoo import Architecture
from benchmarks.zoo._outcome import Outcome
from benchmarks.zoo._samples import CALIBRATION, FITTING, samples, stacked
from benchmarks.zoo._statistics import give_statistics
from edgekit.bundle import read_bundle
from edgekit.converters.quantize import INT8_STEPS
from edgekit.errors import EdgeKitError
from edgekit.evaluation.parity import snr_db

Array = NDArray[Any]


def judge(architecture: Architecture, format_: str, precision: str, out: Path) -> Outcome:
    """Convert an architecture to the bundle `out` and compare it with its Keras model."""
    import keras

    keras.utils.set_random_seed(0)
    model = architecture.build()
    data = samples(architecture.samples, [tuple(i.shape[1:]) for i in model.inputs])
    calibration, held_out = data[:CALIBRATION], data[CALIBRATION:]
    give_statistics(model, stacked(calibration[:FITTING]))
    ranges = [sample if len(sample) > 1 else sample[0] for sample in calibration]
    try:
        edgekit.convert(
            model,
            out,
            precision=precision,
            format=format_,
            data=ranges,
            int8_steps=[one for one in INT8_STEPS if architecture.rounds or one != "round"],
            golden_frames=False,
        )
    except EdgeKitError as error:
        return Outcome(completed=False, reason=str(error))
    fallbacks = tuple(sorted({one.reason for one in read_bundle(out).manifest.fallbacks}))
    backend = "litert" if format_ == "litert" else "onnxruntime"
    with edgekit.open(out, backend=backend, threads=1) as opened:
        found = [_last_channels(opened, one) for one in held_out]
    expected = _arrays(model.predict(stacked(held_out), verbose=0))
    computed = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    pairs = list(zip(expected, computed, strict=True))
    outcome = Outcome(
        completed=True,
        parity_db=min(parity_db(one, other) for one, other in pairs),
        changes_db=min(parity_db(one, other, one - one.mean(axis=0)) for one, other in pairs),
        fallbacks=fallbacks,
    )
    if outcome.passes(precision):
        return outcome
    return msgspec.structs.replace(outcome, reason=_why(out / "report.json"))


def _why(report: Path) -> str | None:
    """Return what the conversion's report says of where the error enters; only LiteRT int8 does."""
    layers = msgspec.json.decode(report.read_bytes())["layers"]
    if layers is None:
        return None
    bad = layers["first_bad"]
    if bad is None:
        return f"no layer alone is bad: what {len(layers['layers'])} of them round adds up"
    return f"falls most at layer {bad['name']}: {bad['why']}"


def parity_db(expected: Array, found: Array, signal: Array | None = None) -> float:
    """Return signal to noise of outputs [samples, ...], as `edgekit convert` measures it.

    Args:
        expected: of the source.
        found: of what was converted.
        signal: whose power counts; by default `expected`.

    >>> round(parity_db(np.array([[10.0]]), np.array([[9.0]])), 6)
    20.0
    """
    wanted = np.asarray(expected, np.float64)
    power = wanted if signal is None else np.asarray(signal, np.float64)
    noise = wanted - np.asarray(found, np.float64)
    return snr_db(float((power**2).sum()), float((noise**2).sum()))


def _last_channels(opened: Any, sample: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return the outputs for a sample, pictures with channels last."""
    raw = opened(sample).raw
    outputs = raw if isinstance(raw, tuple) else (raw,)
    if opened.bundle.manifest.preprocess.layout != "nchw":
        return outputs
    return tuple(np.moveaxis(one, 1, -1) if one.ndim == 4 else one for one in outputs)


def _arrays(outputs: Any) -> Sequence[Array]:
    return outputs if isinstance(outputs, list | tuple) else [outputs]
