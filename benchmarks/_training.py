"""Trainings in processes of their own, in turns, for the benchmark `training`."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._child import ask, child, python_with
from benchmarks._twins import BATCH

Array = NDArray[Any]
_ROUTE = "benchmarks._training_route"
_PART = 10  # steps that one process takes before the next has its turn


@dataclass(frozen=True)
class Task:
    """A training that every route does alike.

    Attributes:
        network: one of `NETWORKS`, whose pictures are -1..1.
        weights: to begin with.
        pictures: in the order of the steps, uint8 [steps * 64, h, w, c].
        answers: what to learn of each.
        calibration: uint8 pictures.
        test: pictures, uint8, on which models are compared.
        loss: Keras' name of it; the network gives logits.
        rate: of Adam in the first step; a cosine leads to 0.
    """

    network: str
    weights: list[Array]
    pictures: Array
    answers: Array
    calibration: Array
    test: Array
    loss: str = "CategoricalCrossentropy"
    rate: float = 1e-3

    def write(self, folder: Path) -> None:
        """Write it as `_training_route` reads it."""
        told = {
            "network": self.network,
            "loss": self.loss,
            "rate": self.rate,
            "steps": self.steps,
            "freeze_after": self.steps * 2 // 3,  # of BatchNormalization, where a route can
        }
        (folder / "task.json").write_text(json.dumps(told), encoding="utf-8")
        np.savez(folder / "weights.npz", *self.weights)
        for name in ("pictures", "answers"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        for name in ("calibration", "test"):
            np.save(folder / f"{name}.npy", signed(getattr(self, name)))

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.pictures) // BATCH


@dataclass(frozen=True)
class Trained:
    """What a route gave.

    Attributes:
        before: the Keras model's outputs on the test pictures.
        after: the same when it was trained.
        wall_s: a step's, the median of each part of the training.
        cpu_s: likewise.
        content: the int8 `.tflite`; None for the float model.
    """

    before: Array
    after: Array
    wall_s: Array
    cpu_s: Array
    content: bytes | None


def signed(pictures: Array) -> Array:
    """Return pictures 0..255 as networks take them, -1..1, float32."""
    return pictures.astype(np.float32) / 127.5 - 1


def train_in_turns(task: Task, routes: dict[str, str]) -> dict[str, Trained]:
    """Train by each route, NAME: its Python, in turns; return what each gave, by its name."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        task.write(folder)
        running = {
            route: stack.enter_context(child(python, _ROUTE, route, str(folder)))
            for route, python in routes.items()
        }
        for process in running.values():
            ask(process)
        costs: dict[str, list[Any]] = {route: [] for route in routes}
        for first in range(0, task.steps, _PART):
            last = min(first + _PART, task.steps)
            names = [*routes]
            turn = first // _PART % len(names)
            for route in names[turn:] + names[:turn]:
                costs[route].append(ask(running[route], f"{first} {last}"))
        stack.close()  # each writes its results and ends
        return {route: _result(folder, route, costs[route]) for route in routes}


def _result(folder: Path, route: str, costs: list[Any]) -> Trained:
    outputs, file = np.load(folder / f"{route}.npz"), folder / f"{route}.tflite"
    return Trained(
        outputs["before"],
        outputs["after"],
        *(np.array([np.median(part[key]) for part in costs]) for key in ("wall_s", "cpu_s")),
        file.read_bytes() if file.is_file() else None,
    )


def try_layers(route: str, python: str, layers: Sequence[str]) -> dict[str, bytes | str]:
    """Return what a route makes of some of `LAYERS`: an int8 `.tflite`, or why it is refused."""
    with child(python, _ROUTE, "--layers", route) as process:
        answers, _ = process.communicate("\n".join(layers))
    lines = map(json.loads, answers.splitlines())
    return {
        line["layer"]: base64.b64decode(line["content"]) if "content" in line else line["refused"]
        for line in lines
    }


def peer_python() -> str | None:
    """Return the Python that has tfmot, or None; then it is said what to do."""
    return python_with(
        "tfmot",
        "tensorflow_model_optimization",
        "EDGEKIT_TFMOT_PYTHON",
        "it needs absl-py below 2, so make an environment for it, `pip install tensorflow tf_keras "
        "tensorflow-model-optimization`",
    )
