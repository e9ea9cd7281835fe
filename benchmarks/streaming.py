"""An LSTM that spots keywords: the whole clip at once and step by step, float and int8.

Ours: an LSTM (64 units) trained on `kws_mfcc_dev.npz` in the folder EDGEKIT_DATA, converted whole
and with `streaming`, for LiteRT and for ONNX Runtime.

Peer: the same model in Keras.

It must show: int8 whole and int8 step by step lose at most one point of accuracy; the float stream
is within 1e-4 of the whole clip. How far a stream of 1,000 steps without a reset is from float, and
what a step takes, is for information.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import edgekit
from benchmarks._measure import Effort, Row, Spread, in_turns, on_clock
from benchmarks._subjects import development_data
from benchmarks._trained import keyword_lstm

_CASES = (
    ("litert", "int8", False),
    ("litert", "fp32", True),
    ("litert", "int8", True),
    ("onnx", "fp32", True),
    ("onnx", "int8", True),
)
_LOSS = 1.0


def measure(effort: Effort) -> list[Row]:
    file = development_data("kws_mfcc_dev.npz")
    if file is None or find_spec("tensorflow") is None:
        print("note: streaming needs TensorFlow and the development data (EDGEKIT_DATA)")
        return []
    is_tiny = effort == "tiny"
    model, data = keyword_lstm(file, 1 if is_tiny else 60), np.load(file)
    cases = _CASES[:3:2] if is_tiny else _CASES
    tests = slice(0, 40) if is_tiny else slice(None)
    arrays = {
        "data": data["x_train"][: 32 if is_tiny else 512, ..., 0],
        "eval_data": (data["x_test"][tests, ..., 0], data["y_test"][tests].astype(np.int64)),
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for format_, precision, streaming in cases:
            out = Path(folder) / f"{format_}_{precision}_{streaming}.edgekit"
            bundle = edgekit.convert(
                model, out, format=format_, precision=precision, streaming=streaming, **arrays
            )
            how = "step by step" if streaming else "whole clip"
            rows += _rows(f"{format_} {precision}, {how}: ", bundle, first=not rows)
    return rows


def _rows(title: str, bundle: Any, first: bool) -> list[Row]:
    manifest = bundle.manifest
    accuracy, streaming = manifest.accuracy, manifest.streaming
    rows = []
    if first:
        rows.append(Row("Keras: accuracy", _once(100 * accuracy.source), unit="%"))
    rows += [
        Row(title + "accuracy", _once(100 * accuracy.converted), unit="%"),
        Row(title + "lost", _once(100 * accuracy.drop), unit="%", at_most=_LOSS),
    ]
    if streaming is None:
        return rows
    if manifest.precision == "fp32":
        largest = 1e6 * manifest.parity.max_abs
        rows.append(Row(title + "largest difference", _once(largest), unit="×10⁻⁶", at_most=100))
    rows += [
        Row(title + "1,000 steps", _once(streaming.drift.snr_db), unit="dB"),
        Row(title + "the last 500", _once(_last_half(streaming.drift)), unit="dB"),
        Row(title + "one step", _latency(bundle), unit="µs"),
    ]
    return rows


def _last_half(drift: Any) -> float:
    """Return the median over the blocks of the second half."""
    blocks = drift.blocks_snr_db
    return float(np.median(blocks[len(blocks) // 2 :]))


def _latency(bundle: Any) -> Spread:
    with edgekit.open(bundle, threads=1) as model:
        row = np.zeros(model.bundle.manifest.inputs[0].shape, np.float32)
        seconds = in_turns([on_clock(lambda: model(row))], 5, 200)
    return Spread.of(1e6 * np.median(seconds[0], axis=1))


def _once(value: Any) -> Spread:
    return Spread.of(np.array([value], np.float64))
