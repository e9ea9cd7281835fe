"""Kernels of an engine and operators of a graph: who is who, and what follows."""

import pytest

from edgekit.profiling.operators._join import join, match
from edgekit.profiling.operators._timing import Kernel
from edgekit.profiling.results import LayerCost, Roofline


def layer(kind, name="", shape=(1, 8, 8, 4), macs=0, read_bytes=0, written_bytes=0):
    return LayerCost(
        name=name or kind.lower(),
        kind=kind,
        shape=shape,
        dtype="int8",
        macs=macs,
        parameters=0,
        read_bytes=read_bytes,
        written_bytes=written_bytes,
    )


def kernel(kind, **told):
    return Kernel(**{"name": kind, "kind": kind, "ms": 1.0, **told})


def matched(kernels, layers):
    return match([kernel(kind) for kind in kernels], [layer(kind) for kind in layers])


@pytest.mark.parametrize(
    ("kernels", "layers", "found"),
    [
        # XNNPACK: 1x1 convolutions run as Fully Connected, the mean is two kernels.
        (
            [
                "Convolution",
                "Convolution DW",
                "Fully Connected",
                "Mean",
                "Static Reshape",
                "Softmax",
            ],
            ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "MEAN", "SOFTMAX"],
            [0, 1, 2, 3, None, 4],
        ),
        # Padding fused into the convolution; an activation that is a kernel of its own.
        (["Convolution", "Add", "Clamp"], ["PAD", "CONV_2D", "ADD"], [1, 2, None]),
        (
            ["Max Pooling", "Deconvolution", "Copy"],
            ["MAX_POOL_2D", "TRANSPOSE_CONV", "CONCATENATION"],
            [0, 1, 2],
        ),
        (["SOFTMAX"], ["SOFTMAX"], [0]),
        # ONNX Runtime's own operators, OpenVINO's names.
        (["FusedConv", "QLinearAdd", "Gemm"], ["Conv", "Relu", "Add", "Gemm"], [0, 2, 3]),
        (
            ["Convolution", "GroupConvolution", "AvgPool"],
            ["CONV_2D", "DEPTHWISE_CONV_2D", "MEAN"],
            [0, 1, 2],
        ),
        ([], ["CONV_2D"], []),
        (["Convolution"], [], [None]),
        (["Subgraph"], ["MUL"], [None]),
    ],
)
def test_kernels_are_found_in_the_graph_by_kind_and_order(kernels, layers, found):
    assert matched(kernels, layers) == found


def test_where_two_answers_are_possible_there_is_none():
    assert matched(["Add"], ["ADD", "ADD"]) == [None]
    assert matched(["Copy", "Copy"], ["CONCATENATION"]) == [None, None]
    # A neighbour of another kind decides which of the two it is.
    assert matched(["Convolution", "Add", "Softmax"], ["ADD", "CONV_2D", "ADD", "SOFTMAX"]) == [
        1,
        2,
        3,
    ]


def test_shapes_decide_where_the_engine_tells_them_in_either_order_of_channels():
    layers = [layer("ADD", shape=(1, 8, 8, 4)), layer("ADD", shape=(1, 4, 4, 16))]
    assert match([kernel("Add", shape=(1, 16, 4, 4))], layers) == [1]
    assert match([kernel("Add", shape=(1, 2, 2, 2))], layers) == [None]


def test_names_count_before_the_order_and_the_most_arithmetic_stands_for_what_is_fused():
    layers = [layer("Relu", "b"), layer("Conv", "a", macs=100), layer("Conv", "c", macs=100)]
    kernels = [kernel("Conv", layers=("c",)), kernel("", layers=("b", "a", "unheard-of"))]
    assert match(kernels, layers) == [2, 1]
    assert match([kernel("", layers=("x",))], layers) == [None]
    # A convolution with the name of the activation that was fused into it is no activation.
    assert match([kernel("Conv", layers=("b",))], layers[:2]) == [1]


def test_what_the_graph_knows_is_filled_in_and_the_rest_left_open():
    layers = [layer("CONV_2D", "conv", macs=5_000_000, read_bytes=900, written_bytes=100)]
    first, second = join([kernel("Convolution", ms=2.0), kernel("Clamp", ms=6.0)], layers, None)
    assert (first.kind, first.layer, first.shape, first.dtype) == (
        "CONV_2D",
        "conv",
        (1, 8, 8, 4),
        "int8",
    )
    assert (first.macs, first.bytes, first.share) == (5_000_000, 1000, 0.25)
    assert first.gflops == pytest.approx(5)  # 10 million operations in 2 ms
    assert (first.bound, first.roofline_share) == ("", None)
    assert (second.kind, second.layer, second.shape, second.macs) == ("Clamp", "", None, None)
    assert (second.bytes, second.gflops, second.share) == (None, None, 0.75)


def test_the_roofline_says_what_bounds_an_operator_and_how_near_it_is():
    machine = Roofline(peak_gflops=100, bandwidth_gb_s=10, source="made up")
    layers = [
        layer(
            "CONV_2D", macs=50_000_000, read_bytes=1_000_000
        ),  # 1 ms of arithmetic, 0.1 of memory
        layer("ADD", macs=0, read_bytes=4_000_000, written_bytes=1_000_000),  # 0.5 ms of memory
    ]
    conv, add = join([kernel("Convolution", ms=4.0), kernel("Add", ms=1.0)], layers, machine)
    assert (conv.bound, add.bound) == ("compute", "memory")
    assert conv.roofline_share == pytest.approx(0.25)
    assert add.roofline_share == pytest.approx(0.5)
    assert add.gflops is None


def test_what_the_caches_can_hold_is_bound_by_them():
    machine = Roofline(
        peak_gflops=100, bandwidth_gb_s=10, source="made up", cache_gb_s=50, cache_bytes=1_000_000
    )
    layers = [layer("ADD", read_bytes=1_000_000), layer("MUL", read_bytes=1_000_001)]
    add, multiply = join([kernel("Add", ms=1.0), kernel("Multiply", ms=1.0)], layers, machine)
    assert add.roofline_share == pytest.approx(0.02)
    assert multiply.roofline_share == pytest.approx(0.1)


def test_a_kernel_too_short_to_be_timed_has_no_speed():
    machine = Roofline(peak_gflops=100, bandwidth_gb_s=10, source="made up")
    (operator,) = join([kernel("Add", ms=0.0)], [layer("ADD", macs=1, read_bytes=1)], machine)
    assert (operator.share, operator.gflops, operator.roofline_share) == (0.0, None, None)
    assert operator.macs == 1
