"""Operator times that add up: `edgekit profile --details` and the inference that it explains.

Ours: the sum of the operators of `operators_of`, by LiteRT's own profiler. Peer: the invoke in the
same runs, by the clock. One thread; random weights, since time does not depend on them.

It must show: the operators of MobileNetV2, ResNet-50 and a U-Net, in fp32 and int8, sum to within
5 % of the invoke. For information: the invoke against one without a profiler, by the interpreter
that the backend uses, in turns.
"""

from __future__ import annotations

import numpy as np

import edgekit
from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import network, picture, small_classifier
from edgekit.profiling.operators import operators_of
from edgekit.runtime.model import Model

_NETWORKS = [
    f"{name}_{precision}"
    for name in ("mobilenet_v2", "resnet50", "unet")
    for precision in ("fp32", "int8")
]
_ROUNDS, _ROUND_S = 5, 3.0


def measure(effort: Effort) -> list[Row]:
    if effort == "tiny":
        with small_classifier("int8").opened() as model:
            return _rows("4 classes, int8", model, 1, 0.1)
    rows = []
    for name in _NETWORKS:
        subject = network(name)
        if subject is None:
            print(f"{name}: left out, converting it needs TensorFlow")
            continue
        with edgekit.open(subject.path.parent, backend="litert", threads=1, check=False) as model:
            model.preprocess(picture())
            rows += _rows(subject.name, model, _ROUNDS, _ROUND_S)
    return rows


def _rows(name: str, model: Model, rounds: int, round_s: float) -> list[Row]:
    differences, slower = [], []
    for _ in range(rounds):
        found = operators_of(model, duration_s=round_s)
        if not found.operators:
            raise RuntimeError(found.note)
        differences.append(100 * abs(found.sum_ms / found.infer_ms - 1))
        slower.append(found.infer_ms / found.plain_ms)
    return [
        Row(f"{name}: |operators / invoke - 1|", Spread.of(np.array(differences)), "%", 5.0),
        Row(f"{name}: invoke / without profiler", Spread.of(np.array(slower))),
    ]
