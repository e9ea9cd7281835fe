"""CPU time and rate of `edgekit run` on a 1280x720 video file.

Ours: `edgekit.runtime.run.run` with no sink, every frame decoded to a class with its account kept.
Peer: the loop of the tutorials: read, cvtColor, resize, float, quantize, set_tensor, invoke,
get_tensor, argmax. The same file, the same interpreter of the same int8 model (MobileNetV2 at
224x224, random weights, or without TensorFlow the tests' small classifier), one inference thread
and one OpenCV thread each; CPU time of the whole process, so that the decoder's threads count, in
alternating blocks. MediaPipe's image classifier, in its mode for videos, runs the same model; it
takes no int8 input, so there it has QUANTIZE at both ends. Ultralytics' `predict` runs YOLOv8n-cls
of random weights in float32, and ours the .onnx that it exports, on one thread. Both have their own
pins: EDGEKIT_MEDIAPIPE_PYTHON and EDGEKIT_ULTRALYTICS_PYTHON name the Python of an environment with
`mediapipe`, and with `ultralytics onnx`.

By the clock on the wall, also against our own parts in a loop, one after the other: `run` begins so
and measures whether reading ahead is faster (34 frames of it are that probe). `run` decodes with
one thread here; the tutorial and the loop in turn with as many as OpenCV chooses, which makes
them faster and their frames dearer.

It must show: of the CPU time of a frame at most 0.95 of the tutorial's, 0.7 of MediaPipe's and 0.4
of Ultralytics'; on two quiet cores 1.2 times the tutorial's frames per second, 1.1 times those of
the loop in turn. Decoding (on one thread) and the network are most of the CPU time of both,
whatever the rest does; rows say how much.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import edgekit
from benchmarks import _video_peers as peers
from benchmarks._measure import Cost, Effort, Row, in_turns, on_clock, ratio
from benchmarks._subjects import ModelFile, interpreter_of, network, small_classifier, video
from edgekit.runtime.camera import open_camera
from edgekit.runtime.model import Model
from edgekit.runtime.run import run
from edgekit.specs import Preprocess

_COMPARED = 20  # frames whose classes tell that a peer runs the same network


def measure(effort: Effort) -> list[Row]:
    cv2.setNumThreads(1)
    known = None if effort == "tiny" else network("mobilenet_v2_int8")
    count, rounds = {"tiny": (5, 2), "normal": (100, 15), "full": (200, 31)}[effort]
    with tempfile.TemporaryDirectory() as scratch:
        return [
            *_int8_rows(known or small_classifier("int8"), video(), count, rounds, Path(scratch)),
            *_float_rows(video(), count, rounds, Path(scratch)),
        ]


def _int8_rows(model: ModelFile, path: Path, count: int, rounds: int, scratch: Path) -> list[Row]:
    with ExitStack() as stack:
        opened = stack.enter_context(model.opened())
        tutorial = _Tutorial(interpreter_of(opened), model.preprocess)
        _check_same(_classes(opened, path), tutorial.run(path, _COMPARED), all_of_them=True)
        costs = [
            _cpu(lambda: run(opened, str(path), max_frames=count)),
            _cpu(lambda: tutorial.run(path, count)),
            _cpu(lambda: tutorial.run_as_written(path, count)),
            _cpu(lambda: _in_turn(opened, path, count)),
            _cpu(lambda: _decode_and_infer(opened, path, count)),
        ]
        python = peers.mediapipe_python()
        if python is not None:
            peer = stack.enter_context(peers.mediapipe(python, model.path, path, scratch))
            _check_same(_classes(opened, path), peer.classes(_COMPARED))
            costs.append(lambda: peer.cpu_s(count))
        ours, other, as_written, in_turn, least, *mediapipe = in_turns(costs, rounds)
        wall = [
            on_clock(lambda: run(opened, str(path), max_frames=count), time.perf_counter_ns),
            on_clock(lambda: tutorial.run(path, count), time.perf_counter_ns),
            on_clock(lambda: _in_turn(opened, path, count), time.perf_counter_ns),
        ]
        ours_s, other_s, in_turn_s = in_turns(wall, rounds)
    return [
        Row("frames per second: ours / tutorial", ratio(other_s, ours_s), at_least=1.2),
        Row("the same: ours / our own loop in turn", ratio(in_turn_s, ours_s), at_least=1.1),
        Row("CPU time of a frame: ours / tutorial", ratio(ours, other), at_most=0.95),
        Row("the same: our own loop in turn / tutorial", ratio(in_turn, other)),
        Row("the same: decoding and network alone / tutorial", ratio(least, other)),
        Row("the same: ours / tutorial with OpenCV's own threads", ratio(ours, as_written)),
        *(Row("the same: ours / MediaPipe", ratio(ours, one), at_most=0.7) for one in mediapipe),
        *(
            Row("the same: decoding and network alone / MediaPipe", ratio(least, one))
            for one in mediapipe
        ),
    ]


def _float_rows(path: Path, count: int, rounds: int, scratch: Path) -> list[Row]:
    python = peers.ultralytics_python()
    if python is None:
        return []
    with ExitStack() as stack:
        onnx = scratch / "yolov8n-cls.onnx"
        peer = stack.enter_context(peers.ultralytics(python, onnx, path))
        edgekit.convert(
            onnx,
            scratch / "yolov8n-cls.edgekit",
            format="onnx",
            precision="fp32",
            preprocess="unit,resize=center_crop",
        )
        opened = stack.enter_context(edgekit.open(scratch / "yolov8n-cls.edgekit", threads=1))
        _check_same(_classes(opened, path), peer.classes(_COMPARED))
        costs = [
            _cpu(lambda: run(opened, str(path), max_frames=count)),
            _cpu(lambda: _decode_and_infer(opened, path, count)),
            lambda: peer.cpu_s(count),
        ]
        ours, least, other = in_turns(costs, rounds)
    return [
        Row("CPU time of a frame, fp32: ours / Ultralytics", ratio(ours, other), at_most=0.4),
        Row("the same, fp32: decoding and network alone / Ultralytics", ratio(least, other)),
    ]


def _cpu(work: Callable[[], Any]) -> Cost:
    return on_clock(work, time.process_time_ns)


def _classes(model: Model, path: Path) -> list[int]:
    classes: list[int] = []
    run(
        model,
        str(path),
        max_frames=_COMPARED,
        on_result=lambda result: classes.append(result.value[0].index),
    )
    return classes


def _check_same(ours: list[int], theirs: list[int], all_of_them: bool = False) -> None:
    """Stop if the other runs something else; its way to resize may turn a few classes."""
    same = sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(ours)
    if same < (1 if all_of_them else 0.5):
        raise AssertionError("the two see different classes; the comparison is void")


def _in_turn(model: Model, path: Path, count: int) -> None:
    """Do what a program of ours does that opens the file itself: with the decoder's own threads.

    By the clock that is faster than the one thread that `run` begins with.
    """
    capture = cv2.VideoCapture(str(path))
    for _ in range(count):
        found, frame = capture.read()
        if not found:
            break
        _ = model(frame).value
    capture.release()


def _decode_and_infer(model: Model, path: Path, count: int) -> None:
    """Do what both programs share, as cheaply as we can, without what leads to the other."""
    camera = open_camera(str(path))
    for _ in range(count):
        if camera.grab() is None:
            break
        camera.retrieve()
        model.infer()
    camera.close()


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
