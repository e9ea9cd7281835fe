"""What an .onnx costs: operators by hand, Q/DQ in the size of integers, inferred shapes."""

import math
import random

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")

import onnx
from onnx import TensorProto, helper
from onnx_graphs import GraphWriter, loop

from edgekit.bundle import read_bundle
from edgekit.errors import MissingPackage, ModelError
from edgekit.profiling.cost import cost_of, cost_of_file


@pytest.fixture
def cost(tmp_path):
    def cost(model):
        onnx.save(model, tmp_path / "m.onnx")
        return cost_of_file(tmp_path / "m.onnx", "onnx")

    return cost


# Shape of the input, shapes of the weights, attributes; multiplications by the definition.
OPERATORS = {
    "Conv": ((1, 4, 9, 9), [(6, 4, 3, 3), (6,)], {"strides": [2, 2]}, 6 * 16 * 9 * 4),
    "Conv, grouped": ((1, 6, 8, 8), [(4, 3, 1, 1)], {"group": 2}, 4 * 64 * 3),
    "Conv, depthwise": ((1, 6, 8, 8), [(6, 1, 5, 5)], {"group": 6, "pads": [2] * 4}, 6 * 64 * 25),
    "Conv, 1-D": ((1, 6, 20), [(4, 6, 3)], {}, 4 * 18 * 3 * 6),
    "ConvTranspose": ((1, 4, 3, 3), [(4, 6, 2, 2)], {"strides": [2, 2]}, 9 * 4 * 4 * 6),
    "Gemm": ((2, 5), [(7, 5), (7,)], {"transB": 1}, 2 * 5 * 7),
    "Gemm, transposed": ((5, 2), [(5, 7), (7,)], {"transA": 1}, 2 * 5 * 7),
    "MatMul": ((3, 2, 5), [(5, 7)], {}, 3 * 2 * 5 * 7),
    "LSTM": ((6, 1, 5), [(1, 16, 5), (1, 16, 4)], {"hidden_size": 4}, 6 * 16 * 9),
    "GRU": ((6, 2, 5), [(1, 12, 5), (1, 12, 4)], {"hidden_size": 4}, 12 * 12 * 9),
    "Add": ((1, 8), [(8,)], {}, 0),
    "Relu": ((1, 8), [], {}, 0),
}


@pytest.mark.parametrize("case", OPERATORS)
def test_multiplications_are_those_of_the_operators_definition(case, cost):
    shape, weights, attributes, macs = OPERATORS[case]
    graph, kind = GraphWriter(), case.partition(",")[0]
    stored = [graph.weights(*one) for one in weights]
    found = cost(graph.model(graph.op(kind, graph.input(shape), *stored, **attributes)))
    (layer,) = found.layers
    assert (layer.kind, layer.macs, found.macs) == (kind, macs, macs)
    assert layer.parameters == found.parameters == sum(math.prod(one) for one in weights)
    assert layer.read_bytes == 4 * (math.prod(shape) + found.parameters)
    assert layer.written_bytes == 4 * math.prod(layer.shape)
    assert found.notes == ()


def test_q_and_dq_say_what_a_tensor_is_kept_in_and_are_no_layers(cost):
    graph = GraphWriter()
    x = graph.qdq(graph.input())
    x = graph.qdq(graph.op("Relu", graph.conv(x)))
    found = cost(graph.model(graph.conv(x)))
    assert [layer.kind for layer in found.layers] == ["QuantizeLinear", "Conv", "Relu", "Conv"]
    _, first, relu, last = found.layers
    pixels, weights = 8 * 16 * 16, 8 * 8 * 9
    assert (first.weights, first.dtype, first.parameters) == ("int8", "int8", weights + 8)
    assert (first.read_bytes, first.written_bytes) == (pixels + weights + 4 * 8, pixels)
    assert (relu.read_bytes, relu.written_bytes) == (pixels, pixels)
    assert (last.dtype, last.written_bytes) == ("float32", 4 * pixels)  # nothing quantizes it
    assert found.macs == 2 * pixels * 8 * 9
    assert found.activations_bytes == 4 * pixels + pixels + 4 * pixels  # input, int8, output


def test_what_is_read_as_a_float_too_stays_one(cost):
    graph = GraphWriter()
    x = graph.op("Relu", graph.input())
    found = cost(graph.model(graph.op("Add", graph.qdq(x), x)))
    assert [layer.kind for layer in found.layers] == ["Relu", "QuantizeLinear", "Add"]
    assert found.layers[0].dtype == "float32"


def test_shapes_that_are_in_the_file_need_no_engine(cost, monkeypatch):
    graph = GraphWriter()
    model = graph.model(graph.op("Relu", graph.conv(graph.input(), is_int8=False)))
    inferred = cost(model)

    def absent():
        raise MissingPackage("onnxruntime is needed")

    monkeypatch.setattr("edgekit.profiling.cost._onnx_file.import_onnxruntime", absent)
    without = cost(model)
    assert without.macs == 0
    assert "its shapes are neither in the file nor inferred" in without.notes[0]
    with_shapes = cost(onnx.shape_inference.infer_shapes(model))
    assert with_shapes.layers == inferred.layers
    assert with_shapes.macs == 8 * 16 * 16 * 8 * 9


def test_an_engine_that_refuses_the_model_leaves_the_rest(cost):
    graph = GraphWriter()
    found = cost(graph.model(graph.op("NoSuchOperator", graph.input(), domain="my.own")))
    assert (found.macs, found.notes[0][:31]) == (0, "NoSuchOperator: not an operator")


def test_open_dimensions_count_as_one_and_are_told(cost):
    graph = GraphWriter()
    found = cost(graph.model(graph.conv(graph.input((None, 8, 16, 16)), is_int8=False)))
    assert found.macs == 8 * 16 * 16 * 8 * 9
    assert found.notes == ("open dimensions count as 1",)


def test_a_loop_is_counted_as_often_as_it_may_run_and_told(cost):
    graph = GraphWriter()
    nodes = [helper.make_node("MatMul", ["v", "w"], ["v2"])]
    stored = [helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.ones(16, np.float32))]
    model = graph.model(loop(graph, nodes, stored))
    found = cost(model)
    assert (found.macs, found.parameters) == (3 * 16, 16)
    assert [layer.kind for layer in found.layers] == ["Loop", "MatMul", "Identity"]
    assert found.layers[1].read_bytes == 3 * 4 * (4 + 16)
    assert found.notes == ("Loop: its operators are counted for 3 runs, the most that it may have",)
    limit = next(one for one in model.graph.initializer if one.data_type == TensorProto.INT64)
    limit.raw_data = np.int64(2**63 - 1).tobytes()  # as exporters write "no limit"
    found = cost(model)
    assert found.macs == 16
    assert found.notes[0].startswith("Loop: how often it runs")


def test_half_precision_and_sizes_in_attributes(cost):
    graph = GraphWriter(real=np.float16)
    x = graph.op("MatMul", graph.input((1, 5)), graph.weights(5, 7))
    shape = graph.op("Constant", value_ints=[7, 1])
    found = cost(graph.model(graph.op("Reshape", x, shape)))
    assert [layer.kind for layer in found.layers] == ["MatMul", "Reshape"]
    assert (found.parameters, found.layers[0].read_bytes) == (35, 2 * (5 + 35))


def test_of_a_bundle(bundle_of_onnx, tmp_path, cost):
    graph = GraphWriter()
    alone = cost(graph.model(graph.conv(graph.input(), is_int8=False)))
    assert cost_of(read_bundle(bundle_of_onnx(tmp_path / "m.onnx"))) == alone


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x01"])
def test_files_that_are_none_are_one_error(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"\.onnx"):
        cost_of_file(tmp_path / "m.onnx", "onnx")


def test_a_damaged_file_is_an_error_or_a_cost_but_never_a_crash(tmp_path, monkeypatch):
    """Shapes are not asked of the engine here: it is what `check_onnx` guards elsewhere."""
    monkeypatch.setattr("edgekit.profiling.cost._onnx_file._infer", lambda *arguments: None)
    graph = GraphWriter()
    x = graph.op("Relu", graph.conv(graph.qdq(graph.input())))
    content = onnx.shape_inference.infer_shapes(graph.model(graph.qdq(x))).SerializeToString()
    choices, costs = random.Random(3), 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(choices.randrange(1, 6)):
            damaged[choices.randrange(len(damaged))] = choices.randrange(256)
        (tmp_path / "m.onnx").write_bytes(damaged)
        try:
            costs += cost_of_file(tmp_path / "m.onnx", "onnx").macs >= 0
        except ModelError:
            costs += 0
    assert costs > 20
