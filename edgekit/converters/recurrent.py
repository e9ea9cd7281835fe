"""Recurrent Keras models -> int8 .tflite, for `edgekit.converters.formats.litert`.

TensorFlow's converter ends its process on int8 loops, so there is none: each LSTM becomes LiteRT's
fused operator, other layers are unrolled. Float models keep their loop. It needs no reset of a
state, and is as fast or faster from some 64 steps and 64 units on (fused 161 µs, loop 106 µs).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.sources.graph import FrozenGraph, one_line
from edgekit.converters.sources.keras import loop_free
from edgekit.converters.tflite.flatbuffer import pack, unpack
from edgekit.errors import ModelError, require
from edgekit.isolated import Progress, run_isolated
from edgekit.runtime.tflite import describe_tflite

_STATE_INPUT = 18
_HIDDEN_INTERMEDIATE = 4


def emit_recurrent(
    source: FrozenGraph,
    convert: Callable[[FrozenGraph, str], bytes],
    samples: Iterable[tuple[NDArray[Any], ...]],
) -> bytes:
    """Return a Keras 3 model whose graph has loops as an int8 .tflite.

    Args:
        source: with `model`, and loops.
        convert: writes a graph as .tflite of a float precision.
        samples: calibration set, one tuple of the model's inputs (batch 1) a sample.

    Raises:
        ModelError: a layer can be neither fused nor unrolled, or TensorFlow fails at it.
    """
    return _quantize(emit_float(source, convert), samples)


def emit_float(source: FrozenGraph, convert: Callable[[FrozenGraph, str], bytes]) -> bytes:
    """Return the same as a float .tflite without loops, to be quantized.

    Raises:
        ModelError: see `emit_recurrent`.
    """
    content = _with_interface(convert(loop_free(source), "fp32"), source)
    if describe_tflite(content, "the model without loops").subgraphs > 1:
        raise ModelError(
            "this model has a loop or branch that is no recurrent layer of Keras, which cannot be "
            "made int8; choose fp32, fp16 or dynamic"
        )
    return content


def _with_interface(content: bytes, source: FrozenGraph) -> bytes:
    """Return the model with the names and the order of `source`'s inputs and outputs.

    The way through a SavedModel loses both: it sorts by name, and names by itself.
    """
    model = unpack(content)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for specs, maps, key in (
        (source.inputs, signature.inputs, "inputs"),
        (source.outputs, signature.outputs, "outputs"),
    ):
        index = {entry.name.decode(): entry.tensorIndex for entry in maps}
        found = [index[f"{key}_{number}"] for number in range(len(specs))]
        setattr(graph, key, np.array(found, np.int32))
        for entry in maps:
            number = int(entry.name.decode().removeprefix(f"{key}_"))
            entry.name = specs[number].name
        if len(set(found)) == len(found):
            for spec, tensor in zip(specs, found, strict=True):
                graph.tensors[tensor].name = spec.name
    return pack(model)


def _quantize(content: bytes, samples: Iterable[tuple[NDArray[Any], ...]]) -> bytes:
    """Quantize in a child: TensorFlow's quantizer ends its process on graphs it does not expect."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        model, data, out = (Path(folder) / name for name in ("float", "samples.npz", "int8"))
        model.write_bytes(content)
        columns = zip(*samples, strict=True)
        np.savez(data, *[np.stack(column) for column in columns])
        run_isolated(
            "edgekit.converters.recurrent:quantize_file",
            {"model": str(model), "samples": str(data), "out": str(out)},
            what="making the recurrent model int8",
        )
        return out.read_bytes()


def quantize_file(model: str, samples: str, out: str, on_progress: Progress | None = None) -> None:
    """Be the child: quantize the float .tflite `model` to `out`, and try whether it runs.

    Args:
        model: path of a float .tflite without loops.
        samples: path of an .npz with one array an input, [n, 1, …].
        out: path of the int8 .tflite to write.
        on_progress: not used; there is little to tell.

    Raises:
        ModelError: TensorFlow cannot quantize it, or LiteRT cannot run the result.
    """
    tf: Any = require("tensorflow", "convert")
    convert: Any = require("tensorflow.lite.python.convert", "convert")
    interpreter: Any = require("ai_edge_litert.interpreter", "convert")
    with np.load(samples) as arrays:
        columns = [arrays[f"arr_{index}"] for index in range(len(arrays.files))]
    try:
        calibrated = _calibrated(Path(model).read_bytes(), columns)
        quantized = convert.mlir_quantize(
            calibrated, input_data_type=tf.int8, output_data_type=tf.int8
        )
        content = _with_aligned_states(bytes(quantized))
        tried = interpreter.Interpreter(model_content=content)
        tried.allocate_tensors()
        tried.invoke()
    except Exception as error:
        raise ModelError(
            f"TensorFlow cannot make this recurrent model int8: {one_line(error)}; choose fp32, "
            f"fp16 or dynamic"
        ) from error
    Path(out).write_bytes(content)


def _calibrated(content: bytes, columns: list[NDArray[Any]]) -> bytes:
    """Return the model with the ranges of its activations, each sequence from a fresh state.

    TFLiteConverter's own calibration never resets the state, so it would observe ranges that do
    not occur (and clip the last layer). What resets it is `Prepare`.
    """
    module: Any = require("tensorflow.lite.python.optimize.calibrator", "convert")

    class FreshStates(module.Calibrator):  # type: ignore[misc]
        def _feed_tensors(self, dataset_gen: Callable[[], Any], resize_input: bool) -> None:
            for sample in dataset_gen():
                self._calibrator.Prepare([list(array.shape) for array in sample])
                self._calibrator.FeedTensor(list(sample))

    calibrator = FreshStates(module.add_intermediate_tensors(content))
    return bytes(calibrator.calibrate(lambda: zip(*columns, strict=True)))


def _with_aligned_states(content: bytes) -> bytes:
    """Return the model with each fused LSTM's state in the scale and zero point of its output.

    They are one buffer. Where something behind the LSTM asks for another scale (the Concatenate of
    a Bidirectional), TensorFlow's quantizer changes the output's only, and each step reads its
    state slightly wrong (measured: agreement 0.965 instead of 0.992).
    """
    model = unpack(content)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if operator.intermediates is None or not len(operator.intermediates):
            continue
        wanted = graph.tensors[operator.outputs[0]].quantization
        for index in (
            operator.inputs[_STATE_INPUT],
            operator.intermediates[_HIDDEN_INTERMEDIATE],
        ):
            graph.tensors[index].quantization.scale = wanted.scale
            graph.tensors[index].quantization.zeroPoint = wanted.zeroPoint
    return pack(model)
