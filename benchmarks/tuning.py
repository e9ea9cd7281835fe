"""What `edgekit tune` chooses, beside all that it could have chosen.

Ours: the engine and the number of threads that `edgekit.profiling.tune.tune` chooses for
MobileNetV2, ResNet-50 and a U-Net with random weights, fp32 and int8, LiteRT and ONNX bundles. It
is asked several times, and each answer is what counts until it is asked again: on a busy machine
two threads may be worth it in one minute and not in the next.
Peer: every other engine and number of threads of the same precision, opened together and measured
by itself: all of them in each round, in an order drawn anew, in blocks three times as long as those
of `tune`, each behind runs that do not count.

It must show: what was chosen takes at most 1.05 times as long as any other, by the clock on the
wall, median over the rounds. A row is against the fastest of the others, which is the strictest
reading: of equal ones chance makes one look faster. The row below it is the slowest, which says
what choosing is worth.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edgekit
from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import network, small_classifier
from edgekit.bundle import Bundle, read_bundle
from edgekit.profiling.frames import golden_frames
from edgekit.profiling.tune import Candidate, tune
from edgekit.profiling.turns import take_turn
from edgekit.runtime.model import open_model

_NETWORKS = ("mobilenet_v2", "resnet50", "unet")
_VARIANTS = ("fp32", "int8", "onnx-fp32", "onnx-int8-cpu")
_BLOCK_S, _LEAST_RUNS = 0.06, 4


def measure(effort: Effort) -> list[Row]:
    """Return a row for each bundle, and one that says what choosing is worth."""
    again, rounds = {"tiny": (1, 1), "normal": (3, 12), "full": (7, 12)}[effort]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for title, bundle in _bundles(effort, Path(name)):
            with _cache(Path(name) / "cache"):
                rows += _rows(title, bundle, again, rounds)
    return rows


def _bundles(effort: Effort, folder: Path) -> Iterator[tuple[str, Bundle]]:
    if effort == "tiny":
        model = small_classifier("int8")
        out = folder / "classifier.edgekit"
        yield (
            model.name,
            edgekit.convert(model.path, out, precision="int8", preprocess=model.preprocess),
        )
        return
    for name in (f"{one}_{variant}" for one in _NETWORKS for variant in _VARIANTS):
        model = network(name)
        if model is None:
            print(f"note: {name} is left out, since TensorFlow, which converts it, is missing")
            continue
        yield model.name, read_bundle(model.path.parent)


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Keep what is found here from `edgekit run --auto`."""
    before = os.environ.get("EDGEKIT_CACHE")
    os.environ["EDGEKIT_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["EDGEKIT_CACHE"]
        else:
            os.environ["EDGEKIT_CACHE"] = before


def _rows(title: str, bundle: Bundle, again: int, rounds: int) -> list[Row]:
    random = np.random.default_rng(0)
    chosen: list[Candidate] = []
    ours, others = [], []
    for _ in range(again):
        tuning = tune(bundle)
        chosen.append(tuning.best)
        candidates = sorted(
            (m.candidate for m in tuning.measured), key=lambda c: (c.backend, c.threads)
        )
        others.append(_seconds(bundle, candidates, rounds, random))
        ours.append(others[-1][candidates.index(tuning.best)])
    seconds = np.concatenate(others, axis=1)
    # Of one that is chosen each time nothing but 1 can come out.
    rivals = [number for number, one in enumerate(candidates) if {one} != {*chosen}]
    ratios = {number: np.concatenate(ours) / seconds[number] for number in rivals or [0]}
    best, slowest = (pick(ratios, key=lambda one: np.median(ratios[one])) for pick in (max, min))
    names = ", ".join(sorted({_name(one) for one in chosen}))
    return [
        Row(f"{title}: {names} / {_name(candidates[best])}", Spread.of(ratios[best]), at_most=1.05),
        Row(f"{title}: {_name(candidates[slowest])} / chosen", Spread.of(1 / ratios[slowest])),
    ]


def _seconds(
    bundle: Bundle, candidates: Sequence[Candidate], rounds: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the median time of a run in each block, [len(candidates), rounds]."""
    seconds = np.empty((len(candidates), rounds))
    with ExitStack() as stack:
        models = [
            stack.enter_context(open_model(bundle, backend=one.backend, threads=one.threads))
            for one in candidates
        ]
        for model in models:
            model.preprocess(next(golden_frames(model)))
        for number in range(rounds):
            for index in random.permutation(len(models)):
                turn = take_turn(models[index].infer, _LEAST_RUNS, _BLOCK_S, time.perf_counter)
                seconds[index, number] = np.median(turn.times_s)
    return seconds


def _name(candidate: Candidate) -> str:
    return f"{candidate.backend} x{candidate.threads}"
