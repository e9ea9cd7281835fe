"""fp16 is in the graph's types, not in a flag."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgekit.converters.onnx.half import to_half  # noqa: E402
from edgekit.converters.sources.onnx import open_session  # noqa: E402
from edgekit.errors import ModelError  # noqa: E402


def model_of(nodes, constants=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def resized():
    random = np.random.default_rng(0)
    weights = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    return model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
            helper.make_node("Resize", ["c", "", "s"], ["y"], name="r", mode="nearest"),
        ],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s"),
        ],
    )


def test_weights_and_activations_are_half_and_the_edges_real():
    half, fallbacks = to_half(resized())
    assert fallbacks == ()
    types = {i.name: i.data_type for i in half.graph.initializer}
    assert types["w"] == TensorProto.FLOAT16 and types["s"] == TensorProto.FLOAT
    infos = {i.name: i.type.tensor_type.elem_type for i in half.graph.value_info}
    assert infos["c"] == TensorProto.FLOAT16
    for tensor in (*half.graph.input, *half.graph.output):
        assert tensor.type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.checker.check_model(half, full_check=True)


def test_it_computes_the_same_to_half_precision():
    model = resized()
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    one, other = (open_session(m, "it").run(None, {"x": x})[0] for m in (model, to_half(model)[0]))
    assert 0 < np.abs(one - other).max() < 4e-3 * np.abs(one).max()


def test_what_must_stay_real_is_named():
    nodes = [helper.make_node("CumSum", ["x", "a"], ["y"], name="total")]
    axis = numpy_helper.from_array(np.array(1, np.int64), "a")
    _, fallbacks = to_half(model_of(nodes, [axis]))
    assert [(f.what, f.reason) for f in fallbacks] == [("total", "CumSum stays fp32")]


def test_loops_are_refused_with_the_reason():
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, (1, 3, 8, 8))],
    )
    choice = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], name="fork", then_branch=body, else_branch=body)
    with pytest.raises(ModelError, match="a loop or a branch .fork.*choose fp32"):
        to_half(model_of([node], [choice]))
