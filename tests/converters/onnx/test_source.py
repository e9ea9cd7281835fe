"""ONNX files as sources: what is read, and what is refused with one message."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.errors import ModelError  # noqa: E402

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)


def network(shape=(1, 3, 8, 8), opset=17, domain="", nodes=None):
    nodes = nodes or [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("BatchNormalization", ["c", *"ssss"], ["b"], name="b"),
        helper.make_node("Identity", ["b"], ["i"], name="i", domain=domain),
        helper.make_node("Relu", ["i"], ["y"], name="y"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(WEIGHTS, "w"),
            numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32), "s"),
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def opened(model, folder, **options):
    path = folder / "net.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return open_source(path, scratch=folder, **options)


def test_a_file_is_opened_simplified_and_computes_the_same(tmp_path):
    model = network()
    source = opened(model, tmp_path)
    assert source.kind == "onnx" and source.precision == "fp32"
    assert [(s.name, s.shape, s.dtype) for s in source.inputs] == [("x", (1, 3, 8, 8), "float32")]
    assert [(s.name, s.shape) for s in source.outputs] == [("y", (1, 4, 6, 6))]
    assert [n.op_type for n in source.model.graph.node] == ["Conv", "Relu"]
    x = RANDOM.normal(size=(1, 3, 8, 8)).astype(np.float32)
    wanted = reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(source.predict([x])[0], wanted, rtol=1e-4, atol=1e-4)


def test_open_dimensions_are_fixed_by_the_caller(tmp_path):
    model = network(("batch", 3, "h", "w"))
    source = opened(model, tmp_path, input_shape=(1, 3, 16, 12))
    assert source.outputs[0].shape == (1, 4, 14, 10)
    with pytest.raises(ModelError, match=r"x is \?x3x\?x\?.*--input-shape"):
        opened(model, tmp_path)
    assert opened(network(("batch", 3, 8, 8)), tmp_path).inputs[0].shape == (1, 3, 8, 8)


def with_external_data(folder, location):
    model = network()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    target = folder / location
    target.write_bytes(model.graph.initializer[0].raw_data)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return model


def test_data_in_the_models_folder_is_read(tmp_path):
    source = opened(with_external_data(tmp_path, "weights.bin"), tmp_path)
    x = RANDOM.normal(size=(1, 3, 8, 8)).astype(np.float32)
    wanted = reference.ReferenceEvaluator(network()).run(None, {"x": x})[0]
    np.testing.assert_allclose(source.predict([x])[0], wanted, rtol=1e-4, atol=1e-4)
    assert all(not i.external_data for i in source.model.graph.initializer)


def test_data_elsewhere_is_refused_and_not_read(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    model = with_external_data(inside, "../weights.bin")
    with pytest.raises(ModelError, match=r"is in '../weights.bin'; only files in the model's own"):
        opened(model, inside)
    (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
    model.graph.initializer[0].external_data[0].value = "link.bin"
    with pytest.raises(ModelError, match="link.bin"):
        opened(model, inside)
    model.graph.initializer[0].external_data[0].value = str(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="only files in the model's own folder"):
        opened(model, inside)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x08\x08", bytes(range(256)) * 20], ids=["", "text", "2", "noise"]
)
def test_what_is_no_model_is_refused_in_one_line(content, tmp_path):
    with pytest.raises(ModelError, match="is not an .onnx file") as caught:
        opened(content, tmp_path)
    assert "\n" not in str(caught.value)


def test_half_a_file_is_refused(tmp_path):
    content = network().SerializeToString()
    for share in (0.3, 0.6, 0.95):
        with pytest.raises(ModelError):
            opened(content[: int(len(content) * share)], tmp_path)


def test_an_old_opset_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ModelError, match="has opset 12; 13 or newer is needed: export it again"):
        opened(network(opset=12), tmp_path)


def test_operators_of_its_own_are_refused_by_name(tmp_path):
    with pytest.raises(ModelError, match="not ONNX's own .own.Identity"):
        opened(network(domain="own"), tmp_path)


def test_a_graph_that_contradicts_itself_is_refused(tmp_path):
    with pytest.raises(ModelError, match="contradicts itself|cannot"):
        opened(network((1, 5, 8, 8)), tmp_path)
    nodes = [helper.make_node("NoSuch", ["x"], ["y"], name="y")]
    with pytest.raises(ModelError, match="NoSuch"):
        opened(network(nodes=nodes), tmp_path)


def test_a_model_with_qdq_is_int8_already(tmp_path):
    scale = helper.make_node("Constant", [], ["k"], value_float=0.1)
    zero = helper.make_node(
        "Constant", [], ["z"], value=numpy_helper.from_array(np.array(0, np.int8))
    )
    nodes = [
        scale,
        zero,
        helper.make_node("QuantizeLinear", ["x", "k", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "k", "z"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    assert opened(network(nodes=nodes), tmp_path).precision == "int8"


def test_a_model_of_operators_on_integers_is_int8_already(tmp_path):
    zero = helper.make_node(
        "Constant", [], ["z"], value=numpy_helper.from_array(np.array(0, np.uint8))
    )
    nodes = [
        zero,
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "k", "p"]),
        helper.make_node("ConvInteger", ["q", "v", "p"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    model = network(nodes=nodes)
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS.astype(np.int8), "v"))
    assert opened(model, tmp_path).precision == "int8"


def test_a_batch_that_no_setting_can_fix_is_refused_with_what_can(tmp_path):
    with pytest.raises(ModelError, match="x is 4x3x8x8.*save the model with batch 1"):
        opened(network((4, 3, 8, 8)), tmp_path)


def test_outputs_that_are_no_tensors_are_refused_as_such(tmp_path):
    model = network(nodes=[helper.make_node("SequenceConstruct", ["x"], ["y"])])
    del model.graph.output[:]
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    model.graph.output.append(sequence)
    with pytest.raises(ModelError, match="output 'y' is no tensor: list"):
        opened(model, tmp_path)
