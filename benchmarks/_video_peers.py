"""What else classifies the frames of a video: MediaPipe and Ultralytics, for the benchmark `video`.

Neither can stand beside the pins, so each runs in an environment of its own (see `_video_route`).
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._child import ask, child, python_with

_ROUTE = "benchmarks._video_route"
_OWN = "it has its own pins, so make an environment for it, `pip install {}`"


def mediapipe_python() -> str | None:
    """Return the Python that has MediaPipe, or None; then it is said what to do."""
    install = _OWN.format("mediapipe")
    return python_with("MediaPipe", "mediapipe", "EDGEKIT_MEDIAPIPE_PYTHON", install)


def ultralytics_python() -> str | None:
    """Return the Python that has Ultralytics, or None; then it is said what to do."""
    install = _OWN.format("ultralytics onnx")
    return python_with("Ultralytics", "ultralytics", "EDGEKIT_ULTRALYTICS_PYTHON", install)


class Peer:
    """A loop over a video in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        ask(process)

    def cpu_s(self, count: int) -> float:
        """Return the CPU time that `count` frames take, all threads."""
        return float(ask(self._process, str(count))["cpu_s"])

    def classes(self, count: int) -> list[int]:
        """Return the classes of the first frames."""
        classes: list[int] = ask(self._process, str(count))["classes"]
        return classes


@contextmanager
def mediapipe(python: str, model: Path, video: Path, scratch: Path) -> Iterator[Peer]:
    """Start MediaPipe on an int8 `.tflite`, which it takes only with uint8 at both ends."""
    file = scratch / "uint8.tflite"
    file.write_bytes(_uint8_ends(model.read_bytes()))
    with child(python, _ROUTE, "mediapipe", str(file), str(video)) as process:
        yield Peer(process)


@contextmanager
def ultralytics(python: str, onnx: Path, video: Path) -> Iterator[Peer]:
    """Start Ultralytics on a network of its own; when it is ready, `onnx` holds its export."""
    environment = {
        "YOLO_OFFLINE": "true",  # else it asks its maker for news
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(onnx.parent),
    }
    arguments = (_ROUTE, "ultralytics", str(onnx), str(video))
    with child(python, *arguments, environment=environment) as process:
        yield Peer(process)


def _uint8_ends(content: bytes) -> bytes:
    """Return an int8 `.tflite` with QUANTIZE from uint8 before it and to uint8 behind it."""
    from edgekit.converters.tflite.flatbuffer import pack, schema, unpack

    model, classes = unpack(content), schema()
    graph = model.subgraphs[0]
    code = classes.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = classes.BuiltinOperator.QUANTIZE
    model.operatorCodes.append(code)

    def uint8_of(index: int) -> int:
        tensor = copy.copy(graph.tensors[index])
        tensor.name, tensor.type, tensor.buffer = (
            tensor.name + b"_uint8",
            classes.TensorType.UINT8,
            0,
        )
        tensor.quantization = copy.copy(tensor.quantization)
        tensor.quantization.zeroPoint = [int(tensor.quantization.zeroPoint[0]) + 128]
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def quantize(source: int, result: int) -> Any:
        operator = classes.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [source], [result]
        return operator

    (taken,), (given,) = map(int, graph.inputs), map(int, graph.outputs)
    outer = {taken: uint8_of(taken), given: uint8_of(given)}
    graph.operators.insert(0, quantize(outer[taken], taken))
    graph.operators.append(quantize(given, outer[given]))
    graph.inputs, graph.outputs = [outer[taken]], [outer[given]]
    for signature in model.signatureDefs or ():
        for one in (*signature.inputs, *signature.outputs):
            one.tensorIndex = outer[one.tensorIndex]
    return pack(model)
