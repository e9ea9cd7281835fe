"""The ONNX lane: int8 answers, float parity, the exporter, and how fast each engine runs it.

Ours: `edgekit.convert` for ResNet-8 on CIFAR-10 from the development data: LiteRT int8, and from
its range table ONNX int8 for TensorRT (`jetson-orin-nano`) and for a CPU (`x86-cpu`), which
ONNX Runtime computes here; 512 calibration pictures, 2,000 test pictures. Its export to float ONNX
of MobileNetV2 and ResNet-50 at 224x224, a U-Net and two LSTM layers, with random weights and
BatchNormalizations that have something to fold. Its backends.

Peer: for the exporter `model.export(format="onnx")` of Keras, which goes through tf2onnx as ours
does; each export in a fresh process, from the loaded model to the file, routes in turns. For the
engines LiteRT int8: MobileNetV2 at 224x224, one thread, CPU time of the process and wall time.

It must show: the int8 ONNX models at least 85.95 % right, half a point below the float model, and
97 % of their answers those of LiteRT int8; float outputs of ours within 1e-4 of the Keras model's,
and of its largest. What the exporters cost and leave and how the engines compare is for
information. `--full` has the peer export ResNet-50 too. An engine that is not installed is named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgekit
from benchmarks._measure import Cost, Effort, Row, Spread, in_turns, on_clock, ratio
from benchmarks._subjects import ROOT, development_data, network
from benchmarks._trained import teacher
from edgekit import plugins

Array = NDArray[Any]
_NEEDED = ("tensorflow", "tf2onnx", "onnx", "onnxruntime")
_OURS, _PEER = "ours", "Keras"
_BASE = "LiteRT int8"
_INT8: dict[str, dict[str, Any]] = {
    _BASE: {"format": "litert"},
    "ONNX int8 for TensorRT": {"format": "onnx", "target": "jetson-orin-nano"},
    "ONNX int8 for a CPU": {"format": "onnx", "target": "x86-cpu"},
}
_EXPORTED = {
    "tiny": ("LSTM",),
    "normal": ("MobileNetV2", "U-Net", "LSTM"),
    "full": ("MobileNetV2", "ResNet-50", "U-Net", "LSTM"),
}
_ENGINES = {
    _BASE: ("litert", "int8"),
    "LiteRT fp32": ("litert", "fp32"),
    "ONNX Runtime fp32": ("onnxruntime", "onnx-fp32"),
    "ONNX Runtime int8 for a CPU": ("onnxruntime", "onnx-int8-cpu"),
    "ONNX Runtime int8 for TensorRT": ("onnxruntime", "onnx-int8-tensorrt"),
    "OpenVINO on LiteRT's int8": ("openvino", "int8"),
}
"""Backend, and variant of the network."""


def measure(effort: Effort) -> list[Row]:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"note: onnx needs {', '.join(missing)}, not installed: "
            "pip install -e '.[cpu,onnx,convert]'"
        )
        return []
    latencies = _engine_rows(effort)  # before this process has TensorFlow's threads and memory
    return [*_answer_rows(effort), *_exporter_rows(effort), *latencies]


def _answer_rows(effort: Effort) -> list[Row]:
    """Return the rows of ResNet-8: right answers, and those that two models have in common."""
    file = development_data("cifar10_dev.npz")
    if file is None:
        print("note: ResNet-8 is left out without the development data; set EDGEKIT_DATA to it")
        return []
    count, tests = (16, 64) if effort == "tiny" else (512, 2000)
    data = np.load(file)
    chosen = np.linspace(0, len(data["x_calib"]) - 1, count).round().astype(int)
    model, pictures = teacher(file), data["x_test"][:tests]
    answers = _int8_answers(model, data["x_calib"][chosen], pictures)
    wanted = model.predict(pictures.astype("float32"), verbose=0).argmax(axis=1)
    labels = data["y_test"][:tests]
    rows = [_percent("ResNet-8, float: right", wanted == labels)]
    for name, given in answers.items():
        title, judged = f"ResNet-8, {name}", name != _BASE
        rows += [
            _percent(f"{title}: right", given == labels, at_least=85.95 if judged else None),
            _percent(f"{title}: as float", given == wanted),
        ]
        if judged:
            same = given == answers[_BASE]
            rows.append(_percent(f"{title}: as {_BASE}", same, at_least=97.0))
    return rows


def _int8_answers(model: Any, calibration: Array, pictures: Array) -> dict[str, Array]:
    """Return the classes that each bundle of `_INT8` gives to RGB pictures; one range table."""
    found: dict[str, Array] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"{_BASE}.edgekit"
        for name, settings in _INT8.items():
            out = Path(folder) / f"{name}.edgekit"
            with redirect_stdout(sys.stderr):  # converters say much
                edgekit.convert(
                    model,
                    out,
                    precision="int8",
                    data=calibration,
                    preprocess="raw",
                    ranges=table if name != _BASE else None,
                    **settings,
                )
            with edgekit.open(out, threads=1) as opened:  # frames are BGR
                frames = pictures[..., ::-1]
                found[name] = np.array([opened(f).outputs[0].argmax() for f in frames])
    return found


def _exporter_rows(effort: Effort) -> list[Row]:
    """Return the rows of float models: parity, what is left, and what the export cost."""
    rounds = {"tiny": 1, "normal": 3, "full": 5}[effort]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        for name in _EXPORTED[effort]:
            figures: dict[str, list[dict[str, float]]] = {_OURS: [], _PEER: []}
            for turn in range(rounds):
                for route in (_OURS, _PEER) if turn % 2 == 0 else (_PEER, _OURS):
                    figures[route].append(_export(route, name, out))
            rows += _compared(name, figures)
        if effort == "normal":
            rows += _exported("ResNet-50", _OURS, [_export(_OURS, "ResNet-50", out)])
    return rows


def _export(route: str, name: str, out: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._onnx_route", route, name, out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"exporting {name}, {route}, failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _compared(name: str, figures: dict[str, list[dict[str, float]]]) -> list[Row]:
    rows = [row for route, found in figures.items() for row in _exported(name, route, found)]
    for key, what in (("wall_s", "wall time"), ("cpu_s", "CPU time")):
        ours, peer = (np.array([one[key] for one in figures[r]]) for r in (_OURS, _PEER))
        rows.append(Row(f"{name}, {_PEER} / {_OURS}: {what}", Spread.of(peer / ours)))
    return rows


def _exported(name: str, route: str, found: list[dict[str, float]]) -> list[Row]:
    values = {key: np.array([one[key] for one in found]) for key in found[0]}
    title, limit = f"{name}, {route}", 100.0 if route == _OURS else None
    difference, relative = (Spread.of(1e6 * values[key]) for key in ("difference", "relative"))
    return [
        Row(f"{title}: largest difference", difference, "×10⁻⁶", at_most=limit),
        Row(f"{title}: largest difference / largest output", relative, "×10⁻⁶", at_most=limit),
        Row(f"{title}: nodes", Spread.of(values["nodes"]), "nodes"),
        Row(f"{title}: Transposes", Spread.of(values["transposes"]), "nodes"),
        Row(f"{title}: wall time", Spread.of(values["wall_s"]), "s"),
        Row(f"{title}: CPU time", Spread.of(values["cpu_s"]), "s"),
    ]


def _engine_rows(effort: Effort) -> list[Row]:
    """Return the rows of the engines: time of a call as a ratio to LiteRT int8."""
    subject = "thousand_classes" if effort == "tiny" else "mobilenet_v2"
    rounds, calls = {"tiny": (2, 2), "normal": (15, 10), "full": (31, 20)}[effort]
    title, rows = subject.replace("_", " "), []
    with ExitStack() as stack:
        works = _opened_engines(subject, stack)
        for what, clock_ns in (
            ("CPU time", time.process_time_ns),  # an engine may compute in a thread of its own
            ("wall time", time.perf_counter_ns),
        ):
            costs: list[Cost] = [on_clock(work, clock_ns) for work in works.values()]
            seconds = dict(zip(works, in_turns(costs, rounds, calls), strict=True))
            base = seconds.pop(_BASE)
            taken = Spread.of(1e3 * np.median(base, axis=1))
            rows.append(Row(f"{title}, {_BASE}: {what}", taken, "ms"))
            rows += [
                Row(f"{title}, {name} / {_BASE}: {what}", ratio(found, base))
                for name, found in seconds.items()
            ]
    return rows


def _opened_engines(subject: str, stack: ExitStack) -> dict[str, Callable[[], None]]:
    """Return what runs `subject` once in each engine, on noise and one thread."""
    random = np.random.default_rng(0)
    works: dict[str, Callable[[], None]] = {}
    for name, (backend, variant) in _ENGINES.items():
        if backend == "openvino" and find_spec(backend) is None:
            print(f"note: {name} is left out: pip install -e '.[openvino]'")
            continue
        model = network(f"{subject}_{variant}")
        assert model is not None, "measure() has looked for TensorFlow"
        engine = stack.enter_context(plugins.load("backend", backend).Backend(model.path, 1))
        for index, spec in enumerate(engine.inputs):
            low, high = (-128, 127) if spec.scale is not None else (-1, 1)
            noise = random.uniform(low, high, spec.shape)
            engine.input_buffer(index)[...] = noise.astype(spec.dtype)
        outputs = [np.empty(spec.shape, spec.dtype) for spec in engine.outputs]
        works[name] = partial(engine.run, outputs)
    return works


def _percent(name: str, hits: Array, at_least: float | None = None) -> Row:
    return Row(name, Spread.of(100 * np.array([hits.mean()])), "%", at_least=at_least)
