"""Another library's loop over a video: `python -m benchmarks._video_route PEER MODEL VIDEO`.

PEER is ``mediapipe``, which classifies by MODEL, a `.tflite` that takes and gives uint8; or
``ultralytics``, which builds YOLOv8n-cls with random weights, writes it to MODEL as .onnx, and runs
it itself, in float32. Each takes neither EdgeKit nor the other. A line COUNT on standard input runs
the video's first COUNT frames; what they cost and their classes come back as a line of JSON.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._child import answering

Loop = Callable[[int], list[int]]
"""Takes a number of frames and returns the class of each."""


def main(peer: str, model: str, video: str) -> None:
    """Run as told by the lines of standard input."""
    with (
        answering() as answer,
        {"mediapipe": _mediapipe, "ultralytics": _ultralytics}[peer](model, video) as loop,
    ):
        answer("ready")
        for line in sys.stdin:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            classes = loop(int(line))
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            answer({"wall_s": wall_s, "cpu_s": cpu_s, "classes": classes})


@contextmanager
def _mediapipe(model: str, video: str) -> Iterator[Loop]:
    """As its guide for Python writes it, in the mode for videos."""
    import cv2
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=model),
        running_mode=vision.RunningMode.VIDEO,
        max_results=5,
    )
    stamps_ms = itertools.count(0, 33)  # they may never fall

    with vision.ImageClassifier.create_from_options(options) as classifier:

        def loop(count: int) -> list[int]:
            capture = cv2.VideoCapture(video)
            classes: list[int] = []
            while len(classes) < count:
                found, frame = capture.read()
                if not found:
                    break
                rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                image = mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb)
                result = classifier.classify_for_video(image, next(stamps_ms))
                classes.append(result.classifications[0].categories[0].index)
            capture.release()
            return classes

        yield loop


@contextmanager
def _ultralytics(model: str, video: str) -> Iterator[Loop]:
    """As its guide writes it: `predict` of a video, streaming."""
    file = Path(model)
    os.chdir(file.parent)  # it writes where it is
    from ultralytics import YOLO

    network = YOLO("yolov8n-cls.yaml")
    Path(network.export(format="onnx", imgsz=224, simplify=False)).rename(file)

    def loop(count: int) -> list[int]:
        results = network.predict(video, stream=True, imgsz=224, verbose=False)
        return [result.probs.top1 for result in itertools.islice(results, count)]

    yield loop


if __name__ == "__main__":
    main(*sys.argv[1:])
