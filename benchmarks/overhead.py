"""What `model(frame)` costs beyond the bare LiteRT interpreter.

Ours: an opened bundle, called with a 1280x720 BGR frame, decoded value included (top-5 with names
and probabilities). Peer: the same OpenCV calls written out by hand, `invoke`, `get_tensor`, with
nothing decoded at all. Both on one thread; each figure is the thread's CPU time.

It must show: at most 10 µs a call, for int8 and for fp32. The ratio beside it says little: it is
what those microseconds are to a model that computes nothing; see the row of MobileNetV2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks._measure import Effort, Row, difference_us, in_turns, on_clock, ratio
from benchmarks._subjects import ModelFile, network, picture, small_classifier
from edgekit.specs import Preprocess, TensorSpec


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
        bare = _bare(model, opened.backend.inputs[0])
        opened(frame)
        if not np.array_equal(bare(frame), opened(frame).outputs[0]):
            raise AssertionError("the two compute different things: the comparison is void")
        costs = [on_clock(lambda: opened(frame)), on_clock(lambda: bare(frame))]
        ours, peer = in_turns(costs, rounds, calls)
    return [
        Row(f"{model.name}: ours - bare", difference_us(ours, peer), "µs", at_most=10.0),
        Row(f"{model.name}: ours / bare", ratio(ours, peer)),
    ]


def _bare(model: ModelFile, spec: TensorSpec) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    """Return the shortest program that a person would write for this one model."""
    interpreter = Interpreter(model_path=str(model.path), num_threads=1)
    interpreter.allocate_tensors()
    view = interpreter.tensor(interpreter.get_input_details()[0]["index"])
    output = interpreter.get_output_details()[0]["index"]
    height, width = spec.shape[1:3]
    small = np.empty((height, width, 3), np.uint8)
    preprocess = Preprocess.parse(model.preprocess)
    pixels = np.arange(256)[:, None] * preprocess.scale - np.array(preprocess.mean * 3)
    table = np.ascontiguousarray(spec.quantize(pixels)[None])

    def call(frame: NDArray[np.uint8]) -> NDArray[Any]:
        target = view()[0]
        cv2.resize(frame, (width, height), dst=small)
        if spec.scale is None:
            cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=small)
            cv2.LUT(small, table, dst=target)
        else:
            pixels = target.view(np.uint8)
            cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=pixels)
            np.bitwise_xor(pixels, np.uint8(0x80), out=pixels)
            del pixels
        del target  # a view that is held makes `invoke` fail
        interpreter.invoke()
        scores: NDArray[Any] = interpreter.get_tensor(output)
        return scores

    return call
