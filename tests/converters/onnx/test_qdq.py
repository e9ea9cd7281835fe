"""Q/DQ is where TensorRT and ONNX Runtime compute in int8, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgekit.converters.observe import clipped_ranges, observe  # noqa: E402
from edgekit.converters.onnx.graph import OnnxGraph  # noqa: E402
from edgekit.converters.onnx.lint import is_clean, lint  # noqa: E402
from edgekit.converters.onnx.observe import OnnxProbe  # noqa: E402
from edgekit.converters.onnx.qdq import insert_qdq, quantize_weights, step_of  # noqa: E402
from edgekit.converters.quantize.ranges import Range  # noqa: E402
from edgekit.converters.sources.onnx import open_session  # noqa: E402
from edgekit.evaluation.parity import snr_db  # noqa: E402

RANDOM = np.random.default_rng(3)


def constant(name, *shape):
    return numpy_helper.from_array(RANDOM.normal(0, 0.5, shape).astype(np.float32), name)


def model_of(nodes, constants, shape=(1, 3, 8, 8)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def residual():
    """Return conv, relu, conv, sum, relu, pool, then conv and pool concatenated, conv, gemm."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("Add", "c2 r1", "sum"),
        node("Relu", "sum", "r2"),
        node("MaxPool", "r2", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p w3", "c3"),
        node("Concat", "c3 p", "cat", axis=1),
        node("Conv", "cat w4", "c4"),
        node("GlobalAveragePool", "c4", "gap"),
        node("Flatten", "gap", "flat"),
        node("Gemm", "flat w5 b5", "y", transB=1),
    ]
    constants = [constant("w1", 4, 3, 3, 3), constant("b1", 4), constant("w2", 4, 4, 3, 3)]
    constants += [constant("w3", 4, 4, 1, 1), constant("w4", 6, 8, 1, 1)]
    return model_of(nodes, [*constants, constant("w5", 5, 6), constant("b5", 5)])


def samples(count=16, shape=(1, 3, 8, 8)):
    random = np.random.default_rng(1)
    return [(random.normal(size=shape).astype(np.float32),) for _ in range(count)]


def quantized(model, data=None, **options):
    data = samples() if data is None else data
    ranges = observe(OnnxProbe(model), lambda: iter(data)).ranges()
    return insert_qdq(model, ranges, **options)


def makers(model):
    return {output: n for n in model.graph.node for output in n.output}


def value(model, name):
    (found,) = (numpy_helper.to_array(i) for i in model.graph.initializer if i.name == name)
    return found


def run(model, sample):
    session = open_session(model, "the test's model")
    return session.run(None, {session.get_inputs()[0].name: sample[0]})[0]


def is_dequantized(model, name):
    maker = makers(model).get(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


def test_each_operator_that_gains_reads_int8_and_biases_stay_real():
    done = quantized(residual()).model
    assert done.graph.output[0].name == "y"
    for found in done.graph.node:
        if found.op_type in ("Conv", "Gemm"):
            assert is_dequantized(done, found.input[0]) and is_dequantized(done, found.input[1])
            assert len(found.input) < 3 or value(done, found.input[2]).dtype == np.float32
        if found.op_type in ("Add", "Concat"):  # both branches
            assert all(is_dequantized(done, name) for name in found.input)
        if found.op_type == "Relu":  # part of what is before it
            assert makers(done)[found.input[0]].op_type in ("Conv", "Add")
    assert not is_dequantized(done, "y")
    onnx.checker.check_model(done, full_check=True)


def test_zero_points_are_zero_and_steps_positive():
    done = quantized(residual()).model
    for found in done.graph.node:
        if found.op_type in ("QuantizeLinear", "DequantizeLinear"):
            point, scale = value(done, found.input[2]), value(done, found.input[1])
            assert point.dtype == np.int8 and not point.any()
            assert (scale > 0).all() and scale.dtype == np.float32


def test_what_moves_values_and_what_is_concatenated_has_one_step():
    done = quantized(residual()).model
    steps = {name: float(value(done, f"{name}/scale")) for name in ("r2", "p", "c3", "cat")}
    assert len(set(steps.values())) == 1
    ranges = observe(OnnxProbe(residual()), lambda: iter(samples())).ranges()
    assert "cat" not in ranges and "p" not in ranges


def test_numbers_come_out_alike_and_the_linter_has_no_objection():
    model, data = residual(), samples()
    done = quantized(model, data)
    assert done.fallbacks == ()
    assert not lint(done.model)
    real = np.array([run(model, sample) for sample in data])
    error = np.array([run(done.model, sample) for sample in data]) - real
    assert snr_db(np.sum(real**2), np.sum(error**2)) > 25


def test_onnxruntime_computes_all_in_integers_on_a_cpu(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    content = quantized(residual(), symmetric=False).model.SerializeToString()
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("QLinearConv") == 4 and not {"Conv", "FusedConv"} & set(kinds)
    assert "QLinearConcat" in kinds


def stored(name, values):
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


PADS = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("between", "constants"),
    [
        (node("Concat", "c k", "m", axis=1), [stored("k", np.full((1, 1, 6, 6), 50))]),
        (node("Pad", "c pads v", "m"), [PADS, stored("v", -70)]),
        (
            node("Resize", "c  s", "m", mode="cubic"),
            [stored("s", [1, 1, 2, 2])],
        ),
        (node("Mul", "c x/scale", "m"), [stored("x/scale", 3)]),
        (node("Mul", "c c/dequantized", "m"), [stored("c/dequantized", 3)]),
    ],
    ids=["stored values concatenated", "padding", "overshoot", "a step's name", "a tensor's name"],
)
def test_what_comes_in_beside_the_input_keeps_its_values(between, constants, symmetric):
    between.input[:] = ["c", "", "s"] if between.op_type == "Resize" else between.input
    channels = 5 if between.op_type == "Concat" else 4
    nodes = [
        node("Conv", "x w1", "c"),
        between,
        node("Conv", "m w2", "y"),
    ]
    weights = [constant("w1", 4, 3, 3, 3), constant("w2", 4, channels, 1, 1)]
    model, data = model_of(nodes, [*weights, *constants]), samples()
    done = quantized(model, data, symmetric=symmetric).model
    onnx.checker.check_model(done, full_check=True)
    assert is_dequantized(done, makers(done)["y"].input[0])
    real = np.array([run(model, sample) for sample in data])
    error = np.array([run(done, sample) for sample in data]) - real
    assert snr_db(np.sum(real**2), np.sum(error**2)) > 25


def test_padding_below_all_values_before_a_maximum_takes_no_steps():
    nodes = [
        node("Conv", "x w1", "c"),
        node("Pad", "c pads v", "m"),
        node("MaxPool", "m", "p", kernel_shape=[2, 2]),
        node("Conv", "p w2", "y"),
    ]
    weights = [constant("w1", 4, 3, 3, 3), constant("w2", 4, 4, 1, 1)]
    done = quantized(model_of(nodes, [*weights, PADS, stored("v", -np.inf)])).model
    assert value(done, "m/scale") == value(done, "c/scale") == value(done, "p/scale")


def test_layers_that_are_said_to_stay_float_do_and_are_named():
    done = quantized(residual(), float_layers=["r2"])
    found = makers(done.model)
    assert found["sum"].input[:] == ["c2", "r1"] and found["c2"].op_type == "Conv"
    assert {fallback.what for fallback in done.fallbacks} == {"r2"}
    kept = quantized(residual(), float_layers=["c3"]).model
    assert makers(kept)["c3"].input[:] == ["p", "w3"]


def test_what_has_no_range_stays_float_and_is_named():
    done = insert_qdq(residual(), {"x": Range(-1, 1)})
    assert is_dequantized(done.model, makers(done.model)["c1"].input[0])
    assert makers(done.model)["c2"].input[:] == ["r1", "w2"]
    assert {fallback.what for fallback in done.fallbacks} == {"c2", "c3", "c4", "y"}
    assert all("no range" in fallback.reason for fallback in done.fallbacks)


def test_weights_that_two_layers_share_are_stored_once():
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w", "y", pads=[1, 1, 1, 1]),
    ]
    done = quantized(model_of(nodes, [constant("w", 3, 3, 3, 3)])).model
    stored = [i.name for i in done.graph.initializer if i.data_type == TensorProto.INT8 and i.dims]
    assert len([name for name in stored if name.endswith("int8")]) == 1
    assert "w" not in [i.name for i in done.graph.initializer]


@pytest.mark.parametrize(
    ("kind", "shape", "attributes", "axis"),
    [
        ("Conv", (4, 3, 3, 3), {}, 0),
        ("ConvTranspose", (3, 4, 2, 2), {"strides": [2, 2]}, None),
        ("MatMul", (8, 5), {}, 1),
    ],
)
def test_scales_go_along_the_axis_that_tensorrt_fuses(kind, shape, attributes, axis):
    done = quantized(model_of([node(kind, "x w", "y", **attributes)], [constant("w", *shape)]))
    weights = makers(done.model)[makers(done.model)["y"].input[1]]
    scales = value(done.model, weights.input[1])
    assert scales.shape == (() if axis is None else (shape[axis],))
    assert [a.i for a in weights.attribute] == ([] if axis is None else [axis])
    assert is_clean(lint(done.model))


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_gemm_has_a_step_for_each_output(transposed, axis):
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w", "y", transB=transposed)]
    shape = (5, 12) if transposed else (12, 5)
    data = samples(shape=(1, 3, 2, 2))
    done = quantized(model_of(nodes, [constant("w", *shape)], (1, 3, 2, 2)), data).model
    (weights,) = (makers(done)[n.input[1]] for n in done.graph.node if n.op_type == "Gemm")
    assert value(done, weights.input[1]).shape == (5,)
    assert [a.i for a in weights.attribute] == [axis]


@given(
    weights=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    channels=st.booleans(),
)
def test_rounded_weights_are_within_half_a_step(weights, channels):
    values, scales = quantize_weights(weights, 0 if channels else None)
    shape = (-1, *[1] * (weights.ndim - 1)) if channels else ()
    error = np.abs(values * scales.reshape(shape).astype(np.float64) - weights)
    assert (scales > 0).all() and values.dtype == np.int8 and values.min() >= -127
    assert (error <= 0.5001 * scales.reshape(shape) + 1e-30).all()


@given(st.floats(0, 2.0**100, width=32))
def test_a_step_reaches_the_largest_value_and_is_never_zero(largest):
    step = np.float32(step_of(largest))
    assert step > 0
    assert largest <= 127.001 * step


def test_narrower_ranges_never_clip_logits():
    nodes = [
        node("Conv", "x w1", "c", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "c", "gap"),
        node("Flatten", "gap", "logits"),
        node("Softmax", "logits", "y", axis=1),
    ]
    probe, data = OnnxProbe(model_of(nodes, [constant("w1", 4, 3, 3, 3)])), samples()
    assert {"logits", "gap", "y"} <= probe.never_clipped
    wide = observe(probe, lambda: iter(data)).ranges()
    narrow = clipped_ranges(probe, wide, lambda: iter(data), "percentile")
    assert narrow.keys() == wide.keys() == {"x", "c"}
    heavy = [(100 * sample[0] ** 5,) for sample in data]
    wide = observe(probe, lambda: iter(heavy)).ranges()
    narrow = clipped_ranges(probe, wide, lambda: iter(heavy), "mse")
    assert narrow["x"].width < 0.99 * wide["x"].width


def test_observed_extremes_are_those_of_the_tensors():
    model, data = residual(), samples(5)
    extremes = observe(OnnxProbe(model), lambda: iter(data))
    place = extremes.tensors.index("x")
    assert extremes.low[:, place].tolist() == [sample.min() for (sample,) in data]
    assert extremes.high[:, place].tolist() == [sample.max() for (sample,) in data]
    assert extremes.ranges()["r1"].min == 0.0


def test_a_layers_name_is_that_of_the_activation_behind_it():
    graph = OnnxGraph(residual())
    named = {n.name: graph.layer_of(n) for n in graph.nodes}
    assert (named["c1"], named["sum"], named["c2"], named["y"]) == ("r1", "r2", "c2", "y")
