"""Where the error of a quantized model enters: float and quantized, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, ModelError, UsageError
from edgekit.evaluation.activations import Activations, Graph
from edgekit.evaluation.causes import BadLayer, Measured, first_bad_layer
from edgekit.evaluation.layer_meter import Grid, LayerMeter
from edgekit.runtime.tflite import TensorDetail

_SAME_ORDER = ("SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE")


class Pair(NamedTuple):
    """One layer's tensor in both models, as indices of their main subgraphs."""

    name: str
    float_index: int
    quantized_index: int


class LayerError(msgspec.Struct, frozen=True):
    """What one layer has lost; `docs/json.md` describes the fields."""

    name: str
    operator: str
    dtype: str
    snr_db: float
    cosine: float
    saturated: float | None
    unused: float | None
    range_ratio: float | None
    tied: float | None


class LayerComparison(msgspec.Struct, frozen=True):
    """All layers in order of execution, the model's inputs before them."""

    n: int
    layers: tuple[LayerError, ...]
    first_bad: BadLayer | None


def compare_layers(
    float_content: bytes,
    quantized_content: bytes,
    pairs: Sequence[tuple[str, int, int]],
    samples: Iterable[tuple[NDArray[Any], ...]],
    class_axis: int | None = None,
) -> LayerComparison:
    """Run a float .tflite and the quantized one made of it on `samples`, layer by layer.

    Memory does not grow with the number of samples.

    Args:
        float_content: the float model; every activation that is compared is float32.
        quantized_content: the same model with some or all tensors quantized.
        pairs: (name, tensor index in the float model, tensor index in the quantized one) of each
            layer. What holds no real values, such as class numbers, is left out. The models'
            inputs are compared too, and belong together by their order.
        samples: one tuple of the float model's inputs (batch 1) a sample; some ten suffice.
        class_axis: dimension of the first output that tells classes; None: it tells numbers.

    Raises:
        DataError: there are no samples.
        ModelError: a file that cannot be run, or values that are not finite.
        UsageError: a pair of tensors that are not there or have different sizes.

    >>> pairs = pair_by_name(float_content, int8_content)
    >>> compare_layers(float_content, int8_content, pairs, samples, class_axis=-1).first_bad
    """
    before = Activations(float_content, "the float model")
    after = Activations(quantized_content, "the quantized model")
    chosen = _chosen(pairs, before, after)
    layers = _measured(chosen, before, after, class_axis)
    n = 0
    for n, sample in enumerate(samples, 1):
        before.run(sample, n)
        after.run([spec.quantize(a) for spec, a in zip(after.inputs, sample, strict=True)], n)
        for (name, one, other), layer in zip(chosen, layers, strict=True):
            layer.meter.add(before.values(one), after.values(other))
            if not layer.meter.is_finite:
                raise ModelError(f"layer {name} of the float model is not finite on sample {n - 1}")
    if not n:
        raise DataError("no samples to compare layers on; give at least one")

    meters = {pair.float_index: layer.meter for pair, layer in zip(chosen, layers, strict=True)}

    def weights_noise(index: int) -> float:
        return _weights_noise(chosen[index], layers[index], meters, before, after)

    return LayerComparison(
        n,
        tuple(
            _row(layer, after.tensors[pair.quantized_index].dtype)
            for pair, layer in zip(chosen, layers, strict=True)
        ),
        first_bad_layer(layers, weights_noise),
    )


def pair_by_name(float_content: bytes, quantized_content: bytes) -> list[Pair]:
    """Return the activations that have the same name in both models, in order of execution.

    Raises:
        ModelError: a file that is no .tflite.
    """
    before = Graph(float_content, "the float model")
    after = Graph(quantized_content, "the quantized model")
    there = {after.tensors[index].name: index for index in after.producers}
    return [
        Pair(name, index, there[name])
        for index in before.producers
        if (name := before.tensors[index].name) in there
        and before.tensors[index].shape == after.tensors[there[name]].shape
    ]


def _chosen(
    pairs: Sequence[tuple[str, int, int]], before: Activations, after: Activations
) -> list[Pair]:
    """Return what is compared: the models' inputs, then `pairs` in order of execution."""
    inputs = zip(before.input_indices, after.input_indices, strict=True)
    found = [Pair(before.tensors[one].name, one, other) for one, other in inputs]
    place = {index: number for number, index in enumerate(before.producers)}
    ordered = sorted(pairs, key=lambda pair: place.get(pair[1], len(place)))
    found += [Pair(*pair) for pair in ordered if pair[1] not in before.input_indices]
    for name, one, other in found:
        shapes = [
            side.tensors[index].shape if 0 <= index < len(side.tensors) else None
            for side, index in ((before, one), (after, other))
        ]
        if shapes[0] is None or shapes[0] != shapes[1]:
            raise UsageError(
                f"`pairs`: layer {name} is tensor {one} of shape {shapes[0]} in the float model "
                f"and tensor {other} of shape {shapes[1]} in the quantized one; they must be alike"
            )
    return [
        pair
        for pair in found
        if before.tensors[pair.float_index].dtype == "float32"
        and _is_real(after.tensors[pair.quantized_index])
    ]


def _is_real(tensor: TensorDetail) -> bool:
    """Whether a tensor holds real values, as they are or on a grid."""
    return tensor.dtype == "float32" or Grid.of(tensor) is not None


def _measured(
    pairs: list[Pair], before: Activations, after: Activations, class_axis: int | None
) -> list[Measured]:
    number_of = {pair.float_index: number for number, pair in enumerate(pairs)}
    answers = _answers(before) if class_axis is not None else set()

    def inputs_of(index: int) -> set[int]:
        """Return the compared layers that tensor `index` is computed from."""
        found: set[int] = set()
        for operand in before.operands(index):
            found |= {number_of[operand]} if operand in number_of else inputs_of(operand)
        return found

    return [
        Measured(
            name=pair.name,
            operator=after.operator(pair.quantized_index),
            inputs=tuple(sorted(inputs_of(pair.float_index))),
            is_output=pair.float_index in before.output_indices,
            meter=LayerMeter(
                Grid.of(after.tensors[pair.quantized_index]),
                class_axis if pair.float_index in answers else None,
            ),
        )
        for pair in pairs
    ]


def _answers(graph: Activations) -> set[int]:
    """Return the first output, and what it is computed from that has the same order of classes."""
    found = set(graph.output_indices[:1])
    waiting = list(found)
    while waiting:
        index = waiting.pop()
        operator = graph.producers.get(index)
        if operator is not None and operator.name in _SAME_ORDER:
            new = [operand for operand in graph.operands(index) if operand not in found]
            found |= set(new)
            waiting += new
    return found


def _weights_noise(
    pair: Pair,
    layer: Measured,
    sources: dict[int, LayerMeter],
    before: Activations,
    after: Activations,
) -> float:
    """Return the noise that a layer's rounded weights are expected to add to its output.

    Rounding errors are independent of each other, so that their squares add up, each weighed by
    the power of the input channel that its weight takes, the last dimension of all LiteRT weights.
    """
    operands = before.operands(pair.float_index), after.operands(pair.quantized_index)
    weights = [
        (one, other)
        for one, other in zip(*operands, strict=False)
        if len(before.tensors[one].shape) > 1
        and before.tensors[one].dtype == "float32"
        and before.tensors[one].constant_bytes
        and after.tensors[other].scales
    ]
    inputs = [sources[index] for index in operands[0] if index in sources]
    if len(weights) != 1 or len(inputs) != 1:
        return 0.0
    one, other = weights[0]
    error = before.values(one) - after.real(other)
    power = inputs[0].signal / inputs[0].places
    # A flattened picture has its channels over and over again.
    by_channel = np.resize(power, error.shape[-1])
    # A stride leaves places of the input out, a transposed convolution makes new ones.
    places = min(inputs[0].places, layer.meter.places)
    return float((error.astype(np.float64) ** 2 @ by_channel).sum()) * places


def _row(layer: Measured, dtype: str) -> LayerError:
    meter = layer.meter
    return LayerError(
        name=layer.name,
        operator=layer.operator,
        dtype=dtype,
        snr_db=meter.snr_db,
        cosine=meter.cosine,
        saturated=meter.saturated,
        unused=meter.unused,
        range_ratio=meter.range_ratio,
        tied=meter.tied / meter.answers if meter.answers else None,
    )
