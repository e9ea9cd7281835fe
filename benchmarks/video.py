"""Frames per CPU second of `edgekit run` on a 1280x720 video file.

Ours: `edgekit.runtime.run.run` with no sink, every frame decoded to a class with its account kept.
Peer: the loop of the tutorials: read, cvtColor, resize, float, quantize, set_tensor, invoke,
get_tensor, argmax. The same file, the same interpreter of the same int8 model (MobileNetV2 at
224x224, random weights, or without TensorFlow the tests' small classifier), one inference thread
and one OpenCV thread each; CPU time of the whole process, so that the decoder's threads count, in
alternating blocks.

By the clock on the wall, also against our own parts in a loop, one after the other: `run` begins so
and measures whether reading ahead is faster (40 frames of it are that probe).

It must show: at least as many frames per CPU second as the peer, and on two quiet cores 1.2 times
its frames per second, 1.1 times those of the loop in turn. Decoding is more than half of
both, so that the ratio is near 1 whatever the rest does; the last row says how much is left.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks._measure import Effort, Row, in_turns, on_clock, ratio
from benchmarks._subjects import ModelFile, interpreter_of, network, small_classifier, video
from edgekit.runtime.camera import open_camera
from edgekit.runtime.model import Model
from edgekit.runtime.run import run
from edgekit.specs import Preprocess


def measure(effort: Effort) -> list[Row]:
    cv2.setNumThreads(1)
    known = None if effort == "tiny" else network("mobilenet_v2_int8")
    return _compare(known or small_classifier("int8"), video(), effort)


def _compare(model: ModelFile, path: Path, effort: Effort) -> list[Row]:
    count, rounds = {"tiny": (5, 2), "normal": (100, 15), "full": (200, 31)}[effort]
    with model.opened() as opened:
        tutorial = _Tutorial(interpreter_of(opened), model.preprocess)
        classes: dict[int, int] = {}
        run(
            opened,
            str(path),
            max_frames=5,
            on_result=lambda result: classes.update({result.frame_id: result.value[0].index}),
        )
        if list(classes.values()) != tutorial.run(path, 5):
            raise AssertionError("the two see different classes; the comparison is void")
        costs = [
            on_clock(lambda: run(opened, str(path), max_frames=count), time.process_time_ns),
            on_clock(lambda: tutorial.run(path, count), time.process_time_ns),
            on_clock(lambda: tutorial.run_as_written(path, count), time.process_time_ns),
            on_clock(lambda: _decode(path, count), time.process_time_ns),
        ]
        ours, peer, as_written, decoding = in_turns(costs, rounds)
        wall = [
            on_clock(lambda: run(opened, str(path), max_frames=count), time.perf_counter_ns),
            on_clock(lambda: tutorial.run(path, count), time.perf_counter_ns),
            on_clock(lambda: _in_turn(opened, path, count), time.perf_counter_ns),
        ]
        ours_s, peer_s, in_turn_s = in_turns(wall, rounds)
    return [
        Row("frames per second: ours / tutorial", ratio(peer_s, ours_s), at_least=1.2),
        Row("the same: ours / our own loop in turn", ratio(in_turn_s, ours_s), at_least=1.1),
        Row("frames per CPU second: ours / tutorial", ratio(peer, ours), at_least=1.0),
        Row("the same, tutorial with OpenCV's own threads", ratio(as_written, ours)),
        Row("the same, decoding alone / ours", ratio(ours, decoding)),
    ]


def _in_turn(model: Model, path: Path, count: int) -> None:
    camera = open_camera(str(path))
    for _ in range(count):
        if camera.grab() is None:
            break
        _ = model(camera.retrieve()).value
    camera.close()


def _decode(path: Path, count: int) -> None:
    capture = cv2.VideoCapture(str(path))
    for _ in range(count):
        capture.read()
    capture.release()


class _Tutorial:
    """The loop that programs begin with, on a model that takes (pixel * scale - mean) as int8."""

    def __init__(self, interpreter: Interpreter, preprocess: str) -> None:
        self.interpreter = interpreter
        self.input = interpreter.get_input_details()[0]
        self.output = interpreter.get_output_details()[0]
        self.preprocess = Preprocess.parse(preprocess)

    def run(self, path: Path, count: int) -> list[int]:
        height, width = self.input["shape"][1:3]
        scale, zero_point = self.input["quantization"]
        classes: list[int] = []
        capture = cv2.VideoCapture(str(path))
        while len(classes) < count:
            found, frame = capture.read()
            if not found:
                break
            image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            image = cv2.resize(image, (width, height))
            real = image.astype(np.float32) * np.float32(self.preprocess.scale)
            real = real - np.float32(self.preprocess.mean[0])
            quantized = np.clip(np.round(real / scale + zero_point), -128, 127).astype(np.int8)
            self.interpreter.set_tensor(self.input["index"], quantized[None])
            self.interpreter.invoke()
            scores = self.interpreter.get_tensor(self.output["index"])[0]
            classes.append(int(np.argmax(scores)))
        capture.release()
        return classes

    def run_as_written(self, path: Path, count: int) -> None:
        """Run with as many OpenCV threads as it starts by itself; tutorials do not limit them."""
        cv2.setNumThreads(-1)
        try:
            self.run(path, count)
        finally:
            cv2.setNumThreads(1)
