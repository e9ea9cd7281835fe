"""The cheapest mix of int8, int16x8 and fp32 layers that keeps an accuracy budget.

Each layer is made int8 alone, to see what that costs at the output; then the worst are raised, as
few as the evaluation set asks for, to the precision that is faster on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Any, get_args

import msgspec
import numpy as np

from edgekit.bundle import Fallback
from edgekit.converters.observe import Samples
from edgekit.converters.sources.tflite import open_interpreter
from edgekit.converters.static import FloatTwin
from edgekit.converters.tflite.graph import FloatGraph
from edgekit.converters.tflite.head import work_shares
from edgekit.converters.tflite.operators import OPERATORS
from edgekit.converters.tflite.plan import LayerPrecision
from edgekit.converters.tflite.quantize_static import Quantized
from edgekit.isolated import Progress

_SAMPLES = 32
_TIMED_RUNS = 15
_RAISED: tuple[LayerPrecision, ...] = ("int16x8", "fp32")


class Sensitivity(msgspec.Struct, frozen=True):
    """What making one layer int8 alone costs: signal to noise at the model's output, in dB."""

    layer: str
    operator: str
    snr_db: float


class Mix(msgspec.Struct, frozen=True):
    """A mix of precisions that was tried.

    Attributes:
        layers: those that are not int8, and their precision.
        drop: of the task's metric on the evaluation set, 0..1.
        predicted_ms: one inference, from the shares of the layers in three whole models' times.
        measured_ms: one inference, median, one thread, this machine; None: it misses the budget,
            so nobody would run it.
    """

    layers: dict[str, LayerPrecision]
    drop: float
    predicted_ms: float
    measured_ms: float | None = None


class Budget(msgspec.Struct, frozen=True):
    """How a mix was found; `docs/json.md` describes the fields.

    Attributes:
        max_drop: what was allowed.
        is_met: whether the chosen mix keeps it.
        chosen: the mix in the bundle: the cheapest that keeps the budget, else the best.
        int8_ms: one inference with all layers in int8.
        int16x8_ms: the same in int16x8, but for layers without such a kernel.
        fp32_ms: the same in fp32.
        sensitivities: of all layers, the worst first.
        tried: every mix that was evaluated, in order.
    """

    max_drop: float
    is_met: bool
    chosen: Mix
    int8_ms: float
    int16x8_ms: float
    fp32_ms: float
    sensitivities: tuple[Sensitivity, ...]
    tried: tuple[Mix, ...]


@dataclass(frozen=True)
class Search:
    """What the search works on.

    Attributes:
        twin: the float model with its ranges.
        samples: starts a pass over the calibration set.
        drop_of: evaluates an integer model: the metric's drop, 0..1.
        max_drop: what is allowed.
        on_progress: called with (phase, done, total).
    """

    twin: FloatTwin
    samples: Samples
    drop_of: Callable[[Quantized], float]
    max_drop: float
    on_progress: Progress


def meet_budget(search: Search) -> tuple[Quantized, Budget]:
    """Return the cheapest mix that keeps the budget, or the best there is, and how it was found."""
    twin = search.twin
    times: dict[str, float] = {
        name: latency_ms(twin.quantize(name, {}).content) for name in get_args(LayerPrecision)
    }
    trial = _Trial(search, times)
    plain = trial.run({})
    sensitivities: tuple[Sensitivity, ...] = ()
    if not trial.keeps(plain):
        sensitivities = sensitivities_of(search)
        worst = [one.layer for one in sensitivities]
        for precision in sorted(_RAISED, key=lambda name: times[name]):
            trial.fewest(worst, precision)
    chosen = trial.best()
    reasons = {one.layer: one.snr_db for one in sensitivities}
    quantized = _explained(twin.quantize("int8", chosen.layers), chosen.layers, reasons)
    return quantized, Budget(
        max_drop=search.max_drop,
        is_met=trial.keeps(chosen),
        chosen=chosen,
        int8_ms=times["int8"],
        int16x8_ms=times["int16x8"],
        fp32_ms=times["fp32"],
        sensitivities=sensitivities,
        tried=tuple(trial.tried),
    )


class _Trial:
    """Evaluates mixes and remembers them."""

    def __init__(self, search: Search, times: Mapping[str, float]) -> None:
        self.tried: list[Mix] = []
        self._search, self._times = search, times
        self._shares = work_shares(FloatGraph(search.twin.content, search.twin.names))

    def run(self, layers: dict[str, LayerPrecision]) -> Mix:
        """Evaluate the mix where `layers` are not int8."""
        self._search.on_progress("trying mixed precision", len(self.tried), 0)
        predicted = self._predicted(layers)
        quantized = self._search.twin.quantize("int8", layers)
        mix = Mix(layers, self._search.drop_of(quantized), predicted)
        if self.keeps(mix):
            mix = msgspec.structs.replace(mix, measured_ms=latency_ms(quantized.content))
        self.tried.append(mix)
        return mix

    def fewest(self, worst: Sequence[str], precision: LayerPrecision) -> None:
        """Search how few of the worst layers must be raised, by doubling and then halving."""
        low, high = 1, len(worst) - 1  # all of them would be the float model
        while low <= high:
            count = (low + high) // 2 if self._found(precision) else min(2 * low, high)
            layers = dict.fromkeys(worst[:count], precision)
            if self._predicted(layers) >= self._ceiling():
                high = count - 1
                continue
            if self.keeps(self.run(layers)):
                high = count - 1
            else:
                low = count + 1

    def keeps(self, mix: Mix) -> bool:
        """Whether a mix keeps the budget; a share of n samples moves in steps of 1/n."""
        return mix.drop <= self._search.max_drop + 1e-9

    def best(self) -> Mix:
        """Return the cheapest mix that keeps the budget, else the one that loses least."""
        kept = [mix for mix in self.tried if self.keeps(mix)]
        if kept:
            return min(kept, key=lambda mix: mix.measured_ms or mix.predicted_ms)
        return min(self.tried, key=lambda mix: (mix.drop, mix.predicted_ms))

    def _found(self, precision: LayerPrecision) -> bool:
        return any(self.keeps(mix) and precision in mix.layers.values() for mix in self.tried)

    def _ceiling(self) -> float:
        """Return what a mix must cost less than: the cheapest that was found."""
        return min((mix.predicted_ms for mix in self.tried if self.keeps(mix)), default=inf)

    def _predicted(self, layers: Mapping[str, LayerPrecision]) -> float:
        return sum(
            share * self._times[layers.get(name, "int8")] for name, share in self._shares.items()
        )


def sensitivities_of(search: Search) -> tuple[Sensitivity, ...]:
    """Return what each layer costs at the output when it alone is int8, the worst first."""
    twin = search.twin
    samples = list(islice(search.samples(), _SAMPLES))
    wanted = _outputs(twin.reference(), samples)
    power = sum(float((array**2).sum()) for array in wanted)
    layers = [
        (name, kind)
        for name, kind, precision in twin.quantize("int8", {}).operators
        if precision != "fp32" and OPERATORS[kind].output != "input"
    ]
    found = []
    for number, (name, kind) in enumerate(layers, 1):
        alone = twin.quantize("fp32", {name: "int8"})
        given = _outputs(alone.content, samples)
        noise = sum(float(((w - g) ** 2).sum()) for w, g in zip(wanted, given, strict=True))
        snr_db = 10 * np.log10(max(power, 1e-30) / max(noise, 1e-20 * power, 1e-30))
        found.append(Sensitivity(name, kind, round(float(snr_db), 2)))
        search.on_progress("one layer at a time", number, len(layers))
    return tuple(sorted(found, key=lambda one: one.snr_db))


def latency_ms(content: bytes) -> float:
    """Return the median time of one inference on zeros, one thread, in ms."""
    interpreter = open_interpreter(content, "the model to be timed")
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    interpreter.invoke()
    times_ns = []
    for _ in range(_TIMED_RUNS):
        started_ns = time.monotonic_ns()
        interpreter.invoke()
        times_ns.append(time.monotonic_ns() - started_ns)
    return float(np.median(times_ns)) / 1e6


def _outputs(content: bytes, samples: Sequence[tuple[Any, ...]]) -> list[Any]:
    interpreter = open_interpreter(content, "the model with one integer layer")
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for sample in samples:
        interpreter.reset_all_variables()
        for detail, array in zip(inputs, sample, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        results += [np.asarray(interpreter.get_tensor(d["index"]), np.float64) for d in outputs]
    return results


def _explained(
    quantized: Quantized, layers: Mapping[str, LayerPrecision], snr_db: Mapping[str, float]
) -> Quantized:
    """Say of the raised layers why they are not int8."""

    def explained(fallback: Fallback) -> Fallback:
        kind, _, name = fallback.what.partition(" ")
        if name not in layers:
            return fallback
        stays = "float" if layers[name] == "fp32" else "int8 with int16 activations"
        return Fallback(
            what=fallback.what,
            reason=f"{stays}, to keep the accuracy budget: in int8 it alone leaves "
            f"{snr_db[name]:.1f} dB at the output",
        )

    return Quantized(
        quantized.content, tuple(map(explained, quantized.fallbacks)), quantized.operators
    )
