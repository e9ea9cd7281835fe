"""Graphs and what is to be said of each: by the linter, and by TensorRT-RTX."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import SHAPE, GraphWriter, body, loop

f32 = np.float32


@dataclass(frozen=True)
class Case:
    """A graph, and the (severity, rule) of all that the linter must find: no more, no less."""

    name: str
    found: frozenset
    model: Any


CASES = []


def case(*found, opset=17, real=f32, name=None):
    """Add what the decorated function writes; `found`: texts like "refused zero-point"."""

    def add(write):
        rules = frozenset(tuple(text.rsplit(" ", 1)) for text in found)
        title = name or write.__name__
        CASES.append(Case(title, rules, write(GraphWriter(opset, real))))
        return write

    return add


def each(choices):
    """Add a case for each of `choices`: name -> (writer, *found)."""
    for title, (write, *found) in choices.items():
        case(*found, name=title)(write)


# What TensorRT takes, all of it in int8 where a weighted layer has Q/DQ.

for opset in (13, 17, 19, 21):
    case(name=f"conv_opset_{opset}", opset=opset)(
        lambda g: g.model(g.qdq(g.conv(g.qdq(g.input()))))
    )

each(
    {
        "conv_per_tensor": (lambda g: g.model(g.qdq(g.conv(g.qdq(g.input()), axis=None))),),
        "depthwise": (lambda g: g.model(g.qdq(g.conv(g.qdq(g.input()), groups=8))),),
        "float_model": (lambda g: g.model(g.conv(g.input(), is_int8=False)),),
        "int8_input": (
            lambda g: g.model(g.qdq(g.conv(g.dq(g.input(dtype=TensorProto.INT8))))),
        ),
        "int8_output": (
            lambda g: g.model(g.q(g.conv(g.qdq(g.input()))), dtype=TensorProto.INT8),
        ),
        "float_weights_through_q_and_dq": (
            lambda g: g.model(
                g.op("Conv", g.qdq(g.input()), g.qdq(g.weights(8, 8, 3, 3), [0.01] * 8, axis=0))
            ),
        ),
        "weights_transposed_behind_their_dq": (
            lambda g: g.model(
                g.op(
                    "Conv",
                    g.qdq(g.input()),
                    g.op("Transpose", g.int8_weights(3, 3, 8, 8, axis=3), perm=[3, 2, 0, 1]),
                )
            ),
        ),
        "softmax_in_float_at_the_end": (
            lambda g: g.model(
                g.op(
                    "Softmax",
                    g.op("Gemm", g.qdq(g.input((1, 32))), g.int8_weights(16, 32), transB=1),
                )
            ),
        ),
    }
)  # fmt: skip


@case(opset=19, real=np.float16)
def float16_with_its_scales(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input()))))


@case("note half-scale", real=np.float16)
def float16_scales_before_opset_19(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input()))))


@case()
def residual_with_both_branches_quantized(g):
    x = g.qdq(g.input())
    total = g.op("Relu", g.op("Add", g.qdq(g.conv(x), 0.04), x))
    return g.model(g.qdq(g.conv(g.qdq(total))))


@case()
def residual_added_inside_the_convolution(g):
    x = g.qdq(g.input())
    total = g.op("Relu", g.op("Add", g.conv(x), x))
    return g.model(g.qdq(g.conv(g.qdq(total))))


def concat_of(first, second, after):
    def write(g):
        x = g.qdq(g.input())
        joined = g.op("Concat", g.qdq(g.conv(x), first), g.qdq(g.conv(x), second), axis=1)
        joined = joined if after is None else g.qdq(joined, after)
        return g.model(g.qdq(g.conv(joined, inputs=16)))

    return write


def move(operator, *inputs, **attributes):
    """int8 layers with `operator`, which has no Q behind it, between them."""

    def write(g):
        stored = [g.constant(np.asarray(values)) for values in inputs]
        moved = g.op(operator, g.qdq(g.conv(g.qdq(g.input()))), *stored, **attributes)
        return g.model(g.qdq(g.conv(moved)))

    return write


def activation(operator, **attributes):
    """int8 layers with `operator` and its Q/DQ between them."""

    def write(g):
        done = g.op(operator, g.qdq(g.conv(g.qdq(g.input()))), **attributes)
        return g.model(g.qdq(g.conv(g.qdq(done))))

    return write


def weighted(operator, rows, columns, axis, rank=2, **attributes):
    def write(g):
        x = g.qdq(g.input((1, 4, 32) if rank == 3 else (4, 32)))
        return g.model(
            g.qdq(g.op(operator, x, g.int8_weights(rows, columns, axis=axis), **attributes))
        )

    return write


def deconvolution(axis):
    def write(g):
        weights = g.int8_weights(8, 4, 2, 2, axis=axis)
        return g.model(g.qdq(g.op("ConvTranspose", g.qdq(g.input()), weights, strides=[2, 2])))

    return write


AXIS = "not fused weight-axis"
each(
    {
        "concat": (concat_of(0.05, 0.05, 0.05),),
        "concat_without_q": (concat_of(0.05, 0.05, None),),
        "concat_of_two_scales": (concat_of(0.05, 0.02, 0.05), "not fused concat-scales"),
        "concat_to_another_scale": (concat_of(0.05, 0.05, 0.1), "not fused concat-scales"),
        "transpose": (move("Transpose", perm=[0, 1, 3, 2]),),
        "reshape": (move("Reshape", [1, 8, 8, 32]),),
        "max_pool": (move("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),),
        "slice": (move("Slice", [0], [8], [2]),),
        "pad": (move("Pad", [0, 0, 1, 1, 0, 0, 1, 1]),),
        "relu_without_q": (move("Relu"), "not fused one-sided"),
        "average_pool_without_q": (
            move("AveragePool", kernel_shape=[2, 2]), "not fused one-sided",
        ),
        "resize_without_q": (
            move("Resize", np.zeros(0, f32), np.array([1, 1, 2, 2], f32), mode="nearest"),
            "not fused one-sided",
        ),
        "hard_swish": (activation("HardSwish"),),
        "sigmoid": (activation("Sigmoid"),),
        "average_pool": (activation("AveragePool", kernel_shape=[2, 2]),),
        "gemm": (weighted("Gemm", 32, 16, 1),),
        "gemm_transposed": (weighted("Gemm", 16, 32, 0, transB=1),),
        "gemm_along_its_inputs": (weighted("Gemm", 32, 16, 0), AXIS),
        "gemm_transposed_along_its_inputs": (weighted("Gemm", 16, 32, 1, transB=1), AXIS),
        "matmul": (weighted("MatMul", 32, 16, 1, rank=3),),
        "matmul_along_its_inputs": (weighted("MatMul", 32, 16, 0), AXIS),
        "conv_along_its_inputs": (
            lambda g: g.model(g.qdq(g.conv(g.qdq(g.input()), axis=1))), AXIS,
        ),
        "deconvolution_per_tensor": (deconvolution(None),),
        "deconvolution_per_input": (deconvolution(0), "not fused deconvolution-per-channel"),
        "deconvolution_per_output": (deconvolution(1), "not fused deconvolution-per-channel"),
    }
)  # fmt: skip

# What becomes an engine, but not the one that was meant.


@case("not fused one-sided")
def weights_alone_quantized(g):
    return g.model(g.conv(g.input()))


@case("not fused one-sided")
def activations_alone_quantized(g):
    return g.model(g.conv(g.qdq(g.input()), is_int8=False))


@case("not fused float-island")
def float_island(g):
    x = g.op("Relu", g.qdq(g.conv(g.qdq(g.input()))))
    x = g.op("Relu", g.conv(x, is_int8=False, name="island"))
    return g.model(g.qdq(g.conv(g.qdq(x))))


@case("not fused residual-branch")
def residual_with_a_float_skip(g):
    x = g.qdq(g.input())
    skip = g.op("Sigmoid", g.conv(x))
    return g.model(g.qdq(g.op("Add", g.conv(x), skip)))


@case("not fused residual-branch")
def residual_with_a_float_main_branch(g):
    x = g.qdq(g.input())
    return g.model(g.qdq(g.op("Add", g.op("Relu", g.conv(x)), x)))


@case("not fused per-channel-activation")
def per_channel_activation(g):
    return g.model(g.conv(g.qdq(g.input(), [0.05] * 8, axis=1)))


@case("not fused uint8")
def uint8_activation(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input(), dtype=np.uint8))))


@case("not fused uint8")
def no_zero_point(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input(), zero=None))))


@case("not fused no-dequantize")
def int8_into_relu(g):
    return g.model(g.op("Relu", g.q(g.input())), dtype=TensorProto.INT8)


@case("not fused computed-scale")
def computed_scale(g):
    scale = g.op("Abs", g.input((), "s"))
    zero = g.constant(np.int8(0))
    quantized = g.op("QuantizeLinear", g.input(), scale, zero)
    return g.model(g.op("DequantizeLinear", quantized, scale, zero))


@case("not fused concat-branch")
def concat_with_a_float_branch(g):
    x = g.qdq(g.input())
    joined = g.op("Concat", g.qdq(g.conv(x)), g.op("Sigmoid", g.conv(x)), axis=1)
    return g.model(g.op("Relu", joined))


@case("not fused scale")
def infinite_scale(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input(), np.inf))))


# What the parser or the builder refuses: Q/DQ.


@case("refused zero-point")
def zero_point(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input(), zero=3))))


@case("refused zero-point", "not fused uint8")
def asymmetric_uint8(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input(), zero=128, dtype=np.uint8))))


@case("refused zero-point")
def zero_point_in_a_loop(g):
    stored = [numpy_helper.from_array(f32(0.1), "s"), numpy_helper.from_array(np.int8(5), "z")]
    nodes = [
        helper.make_node("QuantizeLinear", ["v", "s", "z"], ["vq"], name="q"),
        helper.make_node("DequantizeLinear", ["vq", "s", "z"], ["v2"], name="dq"),
    ]
    return g.model(loop(g, nodes, stored))


@case("refused quantized-type")
def uint8_weights(g):
    weights = g.dq(g.constant(np.ones((8, 8, 3, 3), np.uint8)), 0.01, dtype=np.uint8)
    return g.model(g.op("Conv", g.qdq(g.input()), weights))


@case("refused quantized-type")
def uint8_input_dequantized(g):
    return g.model(g.dq(g.input(dtype=TensorProto.UINT8), dtype=np.uint8))


@case("refused quantized-type", "refused element-type", opset=21)
def int16_activation(g):
    return g.model(g.conv(g.qdq(g.input(), dtype=np.int16)))


@case("refused int32-bias")
def int32_bias(g):
    bias = g.op("DequantizeLinear", g.constant(np.ones(8, np.int32)), g.constant(f32(0.01)))
    return g.model(g.op("Conv", g.qdq(g.input()), g.int8_weights(8, 8, 3, 3), bias))


@case("refused scale")
def negative_scale_of_one_channel(g):
    scales = np.where(np.arange(8) == 3, -0.01, 0.01)
    weights = g.dq(g.constant(np.ones((8, 8, 3, 3), np.int8)), scales, axis=0)
    return g.model(g.op("Conv", g.qdq(g.input()), weights))


def scaled(scale, **attributes):
    return lambda g: g.model(g.qdq(g.input(), scale, **attributes))


@case("refused scale-count", "not fused per-channel-activation")
def two_counts(g):
    scale, zero = g.constant(np.full(8, 0.1, f32)), g.constant(np.zeros(1, np.int8))
    quantized = g.op("QuantizeLinear", g.input(), scale, zero, axis=1)
    return g.model(g.op("DequantizeLinear", quantized, scale, zero, axis=1))


PER_CHANNEL = "not fused per-channel-activation"
each(
    {
        "zero_scale": (scaled(0), "refused scale"),
        "scale_that_is_no_number": (scaled(np.nan), "refused scale"),
        "five_scales_for_eight": (scaled([0.1] * 5, axis=1), "refused scale-count", PER_CHANNEL),
        "axis_that_is_not": (scaled([0.1] * 8, axis=7), "refused scale-count", PER_CHANNEL),
        "scales_of_rank_2": (scaled([[0.1] * 8]), "refused scale-count", PER_CHANNEL),
    }
)


@case("refused stored-int8")
def int8_weights_transposed_before_their_dq(g):
    turned = g.op("Transpose", g.constant(np.ones((3, 3, 8, 8), np.int8)), perm=[3, 2, 0, 1])
    return g.model(g.op("Conv", g.qdq(g.input()), g.dq(turned, 0.01)))


# What the parser or the builder refuses: shapes, types, graphs.


@case("refused dynamic-shape")
def open_batch(g):
    return g.model(g.qdq(g.conv(g.qdq(g.input(("N", 8, 16, 16))))))


@case("refused dynamic-shape", "note wide-type")
def shape_from_outside(g):
    return g.model(g.op("Reshape", g.input(), g.input((2,), "s", TensorProto.INT64)))


@case("refused missing-shape")
def no_shape(g):
    return g.model(g.conv(g.input(None), is_int8=False))


@case("refused element-type")
def uint16_input(g):
    return g.model(g.op("Cast", g.input(dtype=TensorProto.UINT16), to=TensorProto.FLOAT))


@case("refused element-type")
def unused_int16_tensor(g):
    g.constant(np.ones(4, np.int16))
    return g.model(g.op("Relu", g.input()))


@case("note wide-type")
def double(g):
    doubled = g.op("Add", g.op("Cast", g.input(), to=TensorProto.DOUBLE), g.constant(np.ones(1)))
    return g.model(g.op("Cast", doubled, to=TensorProto.FLOAT))


@case("refused mixed-types")
def float32_and_float16(g):
    return g.model(g.op("Add", g.input(), g.constant(np.float16(1))))


@case("refused broken-graph")
def tensor_from_nowhere(g):
    return g.model(g.op("Add", g.input(), "nowhere"))


@case("refused broken-graph")
def output_from_nowhere(g):
    g.op("Relu", g.input())
    return g.model("nothing")


@case("refused broken-graph")
def cycle(g):
    g.nodes += [
        helper.make_node("Add", [g.input(), "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    return g.model("b")


@case("refused broken-graph")
def two_tensors_of_one_name(g):
    g.constant(f32(1), "twice")
    return g.model(g.op("Add", g.input(), g.constant(f32(2), "twice")))


@case()
def nodes_out_of_order(g):
    g.nodes += [
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Sigmoid", [g.input()], ["a"], name="first"),
    ]
    return g.model("b")


# Operators.


def alone(operator, shape=SHAPE, outputs=1, **attributes):
    def write(g):
        made = g.op(operator, g.input(shape), outputs=outputs, **attributes)
        return g.model(made if outputs == 1 else made[0])

    return write


def resize(**attributes):
    """Twice as large, from opset 18 on, which has antialiasing."""
    return lambda g: g.model(
        g.op("Resize", g.input(), "", g.constant(np.array([1, 1, 2, 2], f32)), **attributes)
    )


def recurrent(operator, gates, directions=1, **attributes):
    def write(g):
        made = g.op(
            operator,
            g.input((5, 1, 4)),
            g.weights(directions, 3 * gates, 4),
            g.weights(directions, 3 * gates, 3),
            hidden_size=3,
            outputs=2,
            **attributes,
        )
        return g.model(made[0])

    return write


def branches(operator):
    def write(g):
        x = g.input((4,))
        made = ("made", TensorProto.FLOAT, [4])
        then, other = (
            body([helper.make_node(op, [x], ["made"], name=f"{op} inside")], [], [made])
            for op in ("Relu", operator)
        )
        flag = g.input((), "flag", TensorProto.BOOL)
        return g.model(g.op("If", flag, then_branch=then, else_branch=other))

    return write


def dynamic_quantize(g):
    quantized = g.op("DynamicQuantizeLinear", g.input(), outputs=3)
    return g.model(g.op("DequantizeLinear", *quantized))


def qlinear(g):
    grid = [g.constant(f32(0.1)), g.constant(np.int8(0))]
    weights = g.constant(np.ones((8, 8, 3, 3), np.int8))
    x = g.input(dtype=TensorProto.INT8)
    return g.model(g.op("QLinearConv", x, *grid, weights, *grid, *grid), dtype=TensorProto.INT8)


FORM, UNKNOWN = "refused operator-form", "refused operator"
each(
    {
        "lstm": (recurrent("LSTM", 4),),
        "gru": (recurrent("GRU", 3),),
        "lstm_with_coupled_gates": (recurrent("LSTM", 4, input_forget=1), FORM),
        "lstm_with_two_kinds_of_directions": (
            recurrent(
                "LSTM", 4, 2, direction="bidirectional",
                activations=["Sigmoid", "Tanh", "Tanh", "Relu", "Tanh", "Tanh"],
            ),
            FORM,
        ),
        "loop": (
            lambda g: g.model(loop(g, [helper.make_node("Relu", ["v"], ["v2"], name="inside")])),
        ),
        "if": (branches("Abs"),),
        "if_with_an_unknown_operator_inside": (branches("Det"), UNKNOWN),
        "unknown_operator": (alone("Det", (1, 4, 4)), UNKNOWN),
        "dynamic_quantize": (
            dynamic_quantize, UNKNOWN, "refused quantized-type", "not fused computed-scale",
        ),
        "qlinear_conv": (qlinear, UNKNOWN, "refused stored-int8"),
        "contrib_operator": (alone("FusedConv", domain="com.microsoft"), UNKNOWN),
        "contrib_operator_of_a_standard_name": (
            alone("Gelu", domain="com.microsoft"), "note domain",
        ),
        "max_pool_indices": (alone("MaxPool", outputs=2, kernel_shape=[2, 2]), FORM),
        "max_pool_dilations": (alone("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), FORM),
        "average_pool_of_4_dimensions": (
            alone("AveragePool", (1, 2, 4, 4, 4, 4), kernel_shape=[2] * 4), FORM,
        ),
        "cast_to_int16": (
            lambda g: g.model(g.op("Cast", g.op("Cast", g.input(), to=5), to=1)), FORM,
        ),
        "resize_linear": (resize(mode="linear"),),
        "resize_cubic": (resize(mode="cubic"),),
        "resize_crop": (
            resize(mode="linear", coordinate_transformation_mode="tf_crop_and_resize"), FORM,
        ),
        "lp_pool_of_order_3": (alone("LpPool", kernel_shape=[2, 2], p=3), FORM),
        "dropout_in_training": (
            lambda g: g.model(
                g.op("Dropout", g.input(), g.constant(f32(0.5)), g.constant(np.array(True)))
            ),
            FORM,
        ),
    }
)  # fmt: skip

case(FORM, name="resize_antialiased", opset=18)(resize(mode="linear", antialias=1))
case(FORM, name="batch_norm_in_training", opset=15)(
    lambda g: g.model(
        g.op(
            "BatchNormalization", g.input(), *(g.constant(np.ones(8, f32)) for _ in range(4)),
            training_mode=1, outputs=3,
        )[0]
    )
)  # fmt: skip
case(name="opset_9", opset=9)(alone("Relu"))
case("note opset", name="opset_8", opset=8)(alone("Relu"))
