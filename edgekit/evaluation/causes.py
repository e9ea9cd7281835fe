"""Which layer of a quantized model goes bad first, and why.

A layer's error is new where its signal to noise is lower than that of its inputs, and it counts as
far as no later layer recovers it, as an average over many places may, or an addition to something
larger. What is new is then told apart by measurement: what the tensor's grid does to the float
values by itself (rounding, clipping), what the rounded weights do, and the rest, which the inputs
brought along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from edgekit.evaluation.layer_meter import LayerMeter
from edgekit.evaluation.parity import snr_db

GOOD_SNR_DB = 36.0
"""What an int8 layer has that uses its grid well: falls are counted from here at most."""
LEAST_FALL_DB = 6.0
"""From here on a layer is bad: at least three quarters of its noise are new."""
WIDE_RATIO = 16.0
"""Channels are wide from here on: a quarter of them have 16 of the 256 steps or fewer."""
LOST_CHANNEL_SNR_DB = 24.0
MOSTLY_UNUSED = 0.5
LEAST_TIED = 0.05

Cause = Literal["clipping", "wide_channels", "few_steps", "tied_logits", "weights", "amplified"]


class BadLayer(msgspec.Struct, frozen=True):
    """The layer through which most of the error enters; `docs/json.md` describes the fields."""

    index: int
    name: str
    cause: Cause
    fall_db: float
    shows_at: str
    why: str


class Measured(NamedTuple):
    """One layer's measurements, and which layers, by position, it is computed from."""

    name: str
    operator: str
    inputs: tuple[int, ...]
    is_output: bool
    meter: LayerMeter


# They turn a small difference of large values into a large one of small values, as they should:
# only what their own grid does can be held against them.
_STEEP = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "EXP")

_WeightsNoise = Callable[[int], float]


def first_bad_layer(layers: Sequence[Measured], weights_noise: _WeightsNoise) -> BadLayer | None:
    """Return the layer at which signal to noise falls most, or None: it falls evenly.

    Args:
        layers: in order of execution.
        weights_noise: gives the noise that the rounded weights of a layer add, in the same unit as
            `LayerMeter.noise`; 0 where it has none.
    """
    falls = _falls(layers)
    index = max(range(len(layers)), key=lambda number: falls[number], default=0)
    if not layers or falls[index] < LEAST_FALL_DB:
        return _tied(layers)
    meter = layers[index].meter
    noise: dict[Cause, float] = {
        "clipping": meter.clipping,
        "few_steps": meter.rounding,
        "weights": weights_noise(index),
    }
    noise["amplified"] = float(meter.noise.sum()) - sum(noise.values())
    cause = max(noise, key=lambda name: noise[name])
    origin = index
    if cause == "few_steps" and _is_wide(meter) and (meter.unused or 0) < MOSTLY_UNUSED:
        cause = "wide_channels"
    elif cause in ("weights", "amplified") and (found := _lost_channels(layers, index)) is not None:
        cause, origin = "wide_channels", found
    if cause in ("few_steps", "wide_channels") and _tied_share(layers[origin].meter) >= LEAST_TIED:
        cause = "tied_logits"
    return _bad(layers, origin, cause, falls[index], index)


def _falls(layers: Sequence[Measured]) -> list[float]:
    """Return by how many dB each layer falls against its worst input and is not recovered."""
    consumers: list[list[int]] = [[] for _ in layers]
    for number, layer in enumerate(layers):
        for source in layer.inputs:
            consumers[source].append(number)
    kept = [_snr_db(layer) for layer in layers]
    # Nor does a steep layer recover what came in: shares near 1/n hide the errors of their logits.
    reached = [
        min(layer.meter.snr_db, *(layers[source].meter.snr_db for source in layer.inputs))
        if layer.operator in _STEEP and layer.inputs
        else layer.meter.snr_db
        for layer in layers
    ]
    for number in reversed(range(len(layers))):
        if consumers[number] and not layers[number].is_output:
            later = min(reached[consumer] for consumer in consumers[number])
            kept[number] = max(kept[number], later)
            reached[number] = max(reached[number], later)
    return [
        min([GOOD_SNR_DB, *(layers[source].meter.snr_db for source in layer.inputs)]) - kept[number]
        for number, layer in enumerate(layers)
    ]


def _snr_db(layer: Measured) -> float:
    meter = layer.meter
    if layer.operator not in _STEEP:
        return meter.snr_db
    return snr_db(float(meter.signal.sum()), meter.rounding + meter.clipping)


def _lost_channels(layers: Sequence[Measured], index: int) -> int | None:
    """Return the first layer up the inputs of `index` whose narrow channels one scale loses.

    The large channels hide it there: it shows where a later layer gives the small ones weight.
    """
    found = None
    while True:
        lost = [
            source
            for source in layers[index].inputs
            if _is_wide(layers[source].meter)
            and layers[source].meter.channel_snr_db < LOST_CHANNEL_SNR_DB
        ]
        if not lost:
            return found
        found = index = min(lost, key=lambda source: layers[source].meter.channel_snr_db)


def _is_wide(meter: LayerMeter) -> bool:
    return meter.grid is not None and (meter.range_ratio or 0) >= WIDE_RATIO


def _tied_share(meter: LayerMeter) -> float:
    """Return the share of tied answers; a single one says nothing."""
    return meter.tied / meter.answers if meter.tied > 1 else 0.0


def _tied(layers: Sequence[Measured]) -> BadLayer | None:
    """Return the first layer that leaves answers open, though signal to noise be good."""
    for index, layer in enumerate(layers):
        # A float layer has no steps to tie on: its inputs were alike already.
        if layer.meter.grid is not None and _tied_share(layer.meter) >= LEAST_TIED:
            is_clipped = layer.meter.clipping > layer.meter.rounding
            cause: Cause = "clipping" if is_clipped else "tied_logits"
            return _bad(layers, index, cause, max(0.0, _falls(layers)[index]), index)
    return None


def _bad(
    layers: Sequence[Measured], index: int, cause: Cause, fall_db: float, shows_at: int
) -> BadLayer:
    layer = layers[index]
    sentence = _SENTENCES[cause](layer)
    if tied := _tied_share(layer.meter):
        sentence += f" {tied:.0%} of the answers are ties."
    return BadLayer(index, layer.name, cause, fall_db, layers[shows_at].name, sentence)


def _clipping(layer: Measured) -> str:
    meter = layer.meter
    assert meter.grid is not None
    return (
        f"{meter.saturated:.2%} of its values lie beyond its range {meter.grid.low:.4g} to "
        f"{meter.grid.high:.4g}; they reach {float(meter.low.min()):.4g} to "
        f"{float(meter.high.max()):.4g}. Widen the range: calibrate with more typical samples, or "
        "by min-max."
    )


def _wide_channels(layer: Measured) -> str:
    return (
        f"One scale serves channels whose ranges differ {layer.meter.range_ratio:.0f}-fold; a "
        f"quarter of the channels have less than {layer.meter.channel_snr_db:.0f} dB. Equalize the "
        "channels, or give this layer int16 activations."
    )


def _few_steps(layer: Measured) -> str:
    sentence = (
        f"Its values use few of the steps: {layer.meter.unused:.0%} of the grid is never reached. "
    )
    if layer.operator == "SOFTMAX":
        return sentence + "LiteRT fixes the range of softmax at 0 to 1: give it float outputs."
    return sentence + (
        "Look for an outlier in the calibration set, narrow the range, or give this layer int16 "
        "activations."
    )


def _tied_logits(layer: Measured) -> str:
    assert layer.meter.grid is not None
    return (
        f"Its best values are less than a step of {layer.meter.grid.scale:.3g} apart. Narrow its "
        "range, or give this layer int16 or float outputs."
    )


def _weights(layer: Measured) -> str:
    return (
        "Its activations' ranges are fine; the rounding of its weights makes the error. Round "
        "them adaptively, or keep this layer's weights float."
    )


def _amplified(layer: Measured) -> str:
    return (
        "Neither its range nor its weights make the error: it amplifies that of its inputs, as a "
        "difference of values nearly alike does. Keep this layer and its inputs float or int16."
    )


_SENTENCES: dict[Cause, Callable[[Measured], str]] = {
    "clipping": _clipping,
    "wide_channels": _wide_channels,
    "few_steps": _few_steps,
    "tied_logits": _tied_logits,
    "weights": _weights,
    "amplified": _amplified,
}
