"""What making a model int8 costs: time, memory and noise, each conversion in a fresh process.

Ours: `open_source` and `litert.emit` on a `.keras` file, as `edgekit.convert` calls them, without
its comparison and report; quick (`int8_steps=()`) and with the default steps.

Peer: what TensorFlow's guide says: load the `.keras` file, TFLiteConverter with a representative
dataset, int8 in and out, write the file.

MobileNetV2 at 224x224, trained here for some minutes on the development data's CIFAR-10, 256
calibration images, which all routes read from one file. The whole process counts, from its start to
its end, imports included; routes are taken in turns, and ratios are those of one round. The noise
is that of the logits on 100 pictures which were not calibrated on.

It must show: quick at most 0.7 times the wall time and 0.95 times the peak memory of TensorFlow's
converter, with noise at most 0.2 dB above; default at most 4 times the wall time, and at least 6 dB
less noise. CPU time is for information. Without the development data or TensorFlow there are no
rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._conversion_route import ROUTES
from benchmarks._measure import Effort, Row, Spread
from benchmarks._peers import snr_db, tflite_answers
from benchmarks._subjects import ROOT, development_data
from benchmarks._trained import at_224, mobilenet_v2_224, upscaled

Array = NDArray[Any]
_STEPS = 780  # 5 epochs
_PEER = "TensorFlow"
_LIMITS = {"quick": (0.7, 0.95, -0.2), "default": (4.0, None, 6.0)}


def measure(effort: Effort) -> list[Row]:
    file = development_data("cifar10_dev.npz")
    if file is None or find_spec("tensorflow") is None:
        print("note: conversion needs TensorFlow and the development data (EDGEKIT_DATA)")
        return []
    rounds = {"tiny": 1, "normal": 3, "full": 5}[effort]
    path = mobilenet_v2_224(file, 2 if effort == "tiny" else _STEPS)
    data = np.load(file)
    chosen = np.linspace(0, len(data["x_calib"]) - 1, 8 if effort == "tiny" else 256)
    held_out = at_224(data["x_test"][: 8 if effort == "tiny" else 100])
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in ROUTES}
    noise: dict[str, float] = {}
    wanted = _float_answers(path, held_out)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "calibration.npy"
        np.save(pictures, upscaled(data["x_calib"][chosen.round().astype(int)]))
        for turn in range(rounds):
            names = list(ROUTES)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                out = Path(folder) / f"{name}.tflite"
                costs[name].append(_cost(name, path, pictures, out))
                if name not in noise:
                    noise[name] = snr_db(wanted, tflite_answers(out.read_bytes())(held_out))
    return _rows(costs, noise)


def _float_answers(path: Path, images: Array) -> Array:
    import keras

    model = keras.models.load_model(path, compile=False)
    return np.asarray(model.predict(images, batch_size=16, verbose=0), np.float64)


def _cost(name: str, model: Path, pictures: Path, out: Path) -> dict[str, float]:
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._conversion_route", name, model, pictures, out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = time.perf_counter() - start_s
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return {"wall_s": wall_s, **json.loads(done.stdout.splitlines()[-1])}


def _rows(costs: dict[str, list[dict[str, float]]], noise: dict[str, float]) -> list[Row]:
    figures = {
        name: {key: np.array([one[key] for one in found]) for key in found[0]}
        for name, found in costs.items()
    }
    peer, rows = figures[_PEER], []
    for name, found in figures.items():
        rows += [
            Row(f"{name}: wall time", Spread.of(found["wall_s"]), "s"),
            Row(f"{name}: CPU time", Spread.of(found["cpu_s"]), "s"),
            Row(f"{name}: peak memory", Spread.of(found["peak_mb"]), "MB"),
            Row(f"{name}: SNR", _once(noise[name]), "dB"),
        ]
    for name, (wall, memory, above_db) in _LIMITS.items():
        ours, title = figures[name], f"{name} / {_PEER}"
        rows += [
            Row(f"{title}: wall time", Spread.of(ours["wall_s"] / peer["wall_s"]), at_most=wall),
            Row(f"{title}: CPU time", Spread.of(ours["cpu_s"] / peer["cpu_s"])),
            Row(
                f"{title}: peak memory",
                Spread.of(ours["peak_mb"] / peer["peak_mb"]),
                at_most=memory,
            ),
            Row(
                f"{name} - {_PEER}: SNR",
                _once(noise[name] - noise[_PEER]),
                "dB",
                at_least=above_db,
            ),
        ]
    return rows


def _once(value: float) -> Spread:
    return Spread.of(np.array([value]))
