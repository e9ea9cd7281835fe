"""Reading .tflite files: what they hold, and that damaged ones are errors, never crashes."""

import random
import struct

import numpy as np
import pytest

from edgekit.errors import ModelError
from edgekit.runtime.tflite import describe_tflite

flatbuffers = pytest.importorskip("flatbuffers")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
litert = pytest.importorskip("ai_edge_litert.interpreter")


def tensor(name, shape, dtype, buffer=0, scales=(), zero_points=(), axis=0):
    built = schema.TensorT()
    built.name, built.shape, built.type, built.buffer = name, list(shape), dtype, buffer
    if scales:
        built.quantization = schema.QuantizationParametersT()
        built.quantization.scale = list(scales)
        built.quantization.zeroPoint = list(zero_points)
        built.quantization.quantizedDimension = axis
    return built


def operator(code, inputs, outputs):
    built = schema.OperatorT()
    built.opcodeIndex, built.inputs, built.outputs = code, list(inputs), list(outputs)
    return built


def build(change=None):
    """Return a model with one int8 fully connected layer and a custom operator behind it."""
    kinds = schema.TensorType
    weights = np.arange(12, dtype=np.int8).reshape(3, 4)
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", (1, 4), kinds.INT8, scales=[0.5], zero_points=[-3]),
        tensor("w", (3, 4), kinds.INT8, 1, scales=[0.1, 0.2, 0.3], zero_points=[0, 0, 0]),
        tensor("y", (1, 3), kinds.INT8, scales=[0.25], zero_points=[7]),
        tensor("z", (1, 3), kinds.FLOAT32),
    ]
    graph.inputs, graph.outputs = [0], [2, 3]
    graph.operators = [operator(0, [0, 1, -1], [2]), operator(1, [2], [3])]
    known, custom = schema.OperatorCodeT(), schema.OperatorCodeT()
    known.builtinCode = schema.BuiltinOperator.FULLY_CONNECTED
    known.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    custom.builtinCode = custom.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    custom.customCode = "MyOperator"
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [known, custom]
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = weights.reshape(-1).view(np.uint8)
    if change is not None:
        change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_describes_what_is_in_it():
    content = build()
    described = describe_tflite(content, "model")
    assert [(t.name, t.shape, t.dtype) for t in described.inputs] == [("x", (1, 4), "int8")]
    assert (described.inputs[0].scale, described.inputs[0].zero_point) == (0.5, -3)
    assert [t.name for t in described.outputs] == ["y", "z"]
    assert described.outputs[1].scale is None
    assert (described.subgraphs, described.size_bytes) == (1, len(content))
    weights = described.tensors[1]
    assert weights.is_per_channel
    assert weights.constant_bytes == 12
    assert weights.scales == pytest.approx((0.1, 0.2, 0.3))
    first, second = described.operators
    assert (first.name, first.is_custom) == ("FULLY_CONNECTED", False)
    assert [None if t is None else t.name for t in first.inputs] == ["x", "w", None]
    assert (second.name, second.is_custom, second.subgraph) == ("MyOperator", True, 0)


def test_reads_a_memoryview():
    content = build()
    assert describe_tflite(memoryview(content), "model") == describe_tflite(content, "model")


def _break(path, value):
    """Return a change that sets one attribute, given as path from the model."""

    def change(model):
        *steps, last = path
        for step in steps:
            model = model[step] if isinstance(step, int) else getattr(model, step)
        setattr(model, last, value)

    return change


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("version",), 4, "version 4"),
        (("subgraphs",), [], "no subgraph"),
        (("subgraphs", 0, "inputs"), [9], "not there"),
        (("subgraphs", 0, "outputs"), [-1], "not there"),
        (("subgraphs", 0, "operators", 0, "inputs"), [0, 44], "not there"),
        (("subgraphs", 0, "operators", 0, "outputs"), [-2], "not there"),
        (("subgraphs", 0, "operators", 0, "opcodeIndex"), 7, "without a code"),
        (("subgraphs", 0, "tensors", 1, "buffer"), 5, "missing buffer"),
        (("subgraphs", 0, "tensors", 1, "shape"), [3, 1 << 30], "12 stored"),
        (("subgraphs", 0, "tensors", 0, "shape"), [1, -4], "negative"),
        (("subgraphs", 0, "tensors", 0, "type"), 99, "unknown type"),
        (("subgraphs", 0, "tensors", 1, "quantization", "quantizedDimension"), 1, "steps"),
        (("subgraphs", 0, "tensors", 1, "quantization", "scale"), [0.1, 0.2], "steps"),
        (("subgraphs", 0, "tensors", 0, "quantization", "scale"), [float("nan")], "finite"),
        (("operatorCodes", 0, "builtinCode"), 100_000, "100000 is not known"),
        (("buffers", 1, "offset"), 1 << 40, "behind the file"),
    ],
)
def test_what_contradicts_itself_is_damaged(path, value, says):
    with pytest.raises(ModelError, match=says) as caught:
        describe_tflite(build(_break(path, value)), "shelf.tflite")
    assert str(caught.value).startswith("shelf.tflite")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"TFL3",
        b"\0\0\0\0TFL3",
        b"\xff\xff\xff\xffTFL3",
        b"\x08\0\0\0TFL3" + b"\xff" * 64,
        b"PK\x03\x04" + b"\0" * 100,
        random.Random(0).randbytes(4096),
        b"\x10\0\0\0TFL3" + random.Random(1).randbytes(4096),
    ],
)
def test_what_is_no_tflite(content):
    with pytest.raises(ModelError, match=r"^it\.tflite is"):
        describe_tflite(content, "it.tflite")


def survives(content):
    try:
        describe_tflite(content, "it")
    except ModelError as error:
        assert "\n" not in str(error)
        return False
    return True


def test_every_truncation_is_an_error_or_harmless():
    content = build()
    for length in range(len(content)):
        survives(content[:length])
    assert not survives(content[: len(content) // 2])


def test_flipped_bits_are_errors_or_harmless():
    content = build()
    refused = 0
    rng = random.Random(2)
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        refused += not survives(bytes(damaged))
    for _ in range(500):
        damaged = bytearray(content)
        for _ in range(rng.randint(2, 40)):
            damaged[rng.randrange(len(content))] = rng.randrange(256)
        refused += not survives(bytes(damaged))
    assert refused > 1000


def test_tables_that_repeat_each_other_do_not_cost_time_or_memory():
    """Many operator codes that are all one table with a long name: 400 MB to read of 100 kB."""
    count = 20_000
    custom = schema.BuiltinOperator.CUSTOM
    root = struct.pack("<I4sHHHH", 16, b"TFL3", 8, 12, 4, 8) + struct.pack("<iII", 8, 3, 4)
    table_at = len(root) + 4 + 4 * count + 8
    offsets = [table_at - (len(root) + 4 + 4 * index) for index in range(count)]
    codes = struct.pack(f"<I{count}I", count, *offsets)
    table = struct.pack("<HHHHiIbxxx", 8, 9, 8, 4, 8, 8, custom)
    name = struct.pack("<I", count) + b"x" * count
    with pytest.raises(ModelError, match="repeat each other"):
        describe_tflite(root + codes + table + name, "bomb.tflite")
