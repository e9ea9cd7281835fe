"""What `model(frame)` costs beyond the bare LiteRT interpreter.

Ours: an opened bundle, called with a 1280x720 BGR frame, decoded value included (top-5 with names
and probabilities). Peer: the same OpenCV calls written out by hand for this one model, `invoke`,
`get_tensor`, and nothing decoded at all. Both use one interpreter with one thread, and are measured
by the thread's CPU time.

It must show: at most 10 µs a call, for int8 and for fp32, with 4 classes and with 1,000. These
models compute next to nothing, so that the difference shows, and the ratio beside it is the worst
that there is. `--full` adds MobileNetV2, for information: its work empties the caches, so that the
same instructions take several times as long, and the ratio is what a real network sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks._measure import Effort, Row, difference_us, in_turns, on_clock, ratio
from benchmarks._subjects import ModelFile, interpreter_of, network, picture, small_classifier
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Preprocess, TensorSpec

_Fill = Callable[[NDArray[np.uint8], NDArray[Any]], None]


def measure(effort: Effort) -> list[Row]:
    cv2.setNumThreads(1)
    models = [small_classifier("int8"), small_classifier("fp32")]
    if effort != "tiny":
        wanted = ["thousand_classes_int8", "thousand_classes_fp32"]
        wanted += ["mobilenet_v2_int8"] if effort == "full" else []
        models += [model for name in wanted if (model := network(name)) is not None]
    return [row for model in models for row in _compare(model, effort)]


def _compare(model: ModelFile, effort: Effort) -> list[Row]:
    frame = picture()
    rounds, calls = (2, 3) if effort == "tiny" else (15, 100)
    with model.opened() as opened:
        fill = _fill(model, opened.backend.inputs[0])
        by_hand = np.empty_like(opened.backend.input_buffer(0))
        fill(frame, by_hand)
        opened.preprocess(frame)
        if not np.array_equal(by_hand, opened.backend.input_buffer(0)):
            raise AssertionError(f"{model.name}: the two inputs differ; the comparison is void")
        bare = _bare(interpreter_of(opened), fill)
        costs = [on_clock(lambda: opened(frame)), on_clock(lambda: bare(frame))]
        ours, peer = in_turns(costs, rounds, calls)
    limit = 10.0 if model.preprocess == "raw" else None
    return [
        Row(f"{model.name}: ours - bare", difference_us(ours, peer), "µs", at_most=limit),
        Row(f"{model.name}: ours / bare", ratio(ours, peer)),
    ]


def _bare(interpreter: Interpreter, fill: _Fill) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    view = interpreter.tensor(interpreter.get_input_details()[0]["index"])
    output = interpreter.get_output_details()[0]["index"]

    def call(frame: NDArray[np.uint8]) -> NDArray[Any]:
        fill(frame, view())
        interpreter.invoke()
        scores: NDArray[Any] = interpreter.get_tensor(output)
        return scores

    return call


def _fill(model: ModelFile, spec: TensorSpec) -> _Fill:
    """Return the preprocessing: written by hand where pixels go in raw, else EdgeKit's own."""
    if model.preprocess != "raw":
        return Preprocessor(Preprocess.parse(model.preprocess).for_input(spec), spec)
    height, width = spec.shape[1:3]
    small = np.empty((height, width, 3), np.uint8)
    pixel_values = np.arange(256, dtype=np.float32)[None]

    def fill_int8(frame: NDArray[np.uint8], out: NDArray[np.int8]) -> None:
        cv2.resize(frame, (width, height), dst=small)
        pixels = out[0].view(np.uint8)
        cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=pixels)
        np.bitwise_xor(pixels, np.uint8(0x80), out=pixels)

    def fill_float(frame: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        cv2.resize(frame, (width, height), dst=small)
        cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=small)
        cv2.LUT(small, pixel_values, dst=out[0])

    return fill_int8 if spec.scale is not None else fill_float
