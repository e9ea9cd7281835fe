"""What a .tflite costs: against Keras' own count, the engine's own arena, and by hand."""

import math

import numpy as np
import pytest

from edgekit.bundle import read_bundle
from edgekit.errors import ModelError
from edgekit.profiling.cost import cost_of, cost_of_file

flatbuffers = pytest.importorskip("flatbuffers")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
litert = pytest.importorskip("ai_edge_litert.interpreter")

KINDS = schema.TensorType


class Writer:
    """A .tflite of operators that follow each other; it need not run."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version, self.model.buffers = 3, [schema.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], []
        self.graph()

    def graph(self):
        self.now = schema.SubGraphT()
        self.now.tensors, self.now.operators, self.now.inputs, self.now.outputs = [], [], [], []
        self.model.subgraphs.append(self.now)

    def tensor(self, *shape, kind=KINDS.FLOAT32, constant=False, scales=()):
        built = schema.TensorT()
        built.name, built.shape, built.type = f"t{len(self.now.tensors)}", list(shape), kind
        bits = {KINDS.FLOAT32: 32, KINDS.FLOAT16: 16, KINDS.INT4: 4, KINDS.INT8: 8, KINDS.INT32: 32}
        if constant:
            buffer = schema.BufferT()
            buffer.data = np.ones((math.prod(shape) * bits[kind] + 7) // 8, np.uint8)
            self.model.buffers.append(buffer)
            built.buffer = len(self.model.buffers) - 1
        if scales:
            built.quantization = schema.QuantizationParametersT()
            built.quantization.scale, built.quantization.zeroPoint = list(scales), [0] * len(scales)
        self.now.tensors.append(built)
        return len(self.now.tensors) - 1

    def weights(self, *shape, **choices):
        return self.tensor(*shape, constant=True, **choices)

    def whole(self, number):
        index = self.weights(1, kind=KINDS.INT32)
        content = np.int32([number]).view(np.uint8)
        self.model.buffers[self.now.tensors[index].buffer].data = content
        return index

    def operator(self, name, inputs, output, custom=False, loop=None):
        code, built = schema.OperatorCodeT(), schema.OperatorT()
        builtin = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
        code.customCode = name if custom else None
        built.opcodeIndex = len(self.model.operatorCodes)
        built.inputs, built.outputs = inputs, output if isinstance(output, list) else [output]
        if loop is not None:
            built.builtinOptionsType = schema.BuiltinOptions.WhileOptions
            built.builtinOptions = schema.WhileOptionsT()
            built.builtinOptions.condSubgraphIndex, built.builtinOptions.bodySubgraphIndex = loop
        self.model.operatorCodes.append(code)
        self.now.operators.append(built)
        return output

    def cost(self, folder, inputs=(), outputs=()):
        first = self.model.subgraphs[0]
        first.inputs, first.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        (folder / "m.tflite").write_bytes(bytes(builder.Output()))
        return cost_of_file(folder / "m.tflite", "litert")


# Inputs, weights among them given as lists; output; multiplications by the definition.
OPERATORS = {
    "CONV_2D": ([(1, 9, 9, 4), [6, 3, 3, 4], [6]], (1, 5, 5, 6), 5 * 5 * 6 * 3 * 3 * 4),
    "DEPTHWISE_CONV_2D": ([(1, 9, 9, 4), [1, 3, 3, 8], [8]], (1, 9, 9, 8), 9 * 9 * 8 * 9),
    "TRANSPOSE_CONV": ([[4], [6, 2, 2, 4], (1, 3, 3, 4), [6]], (1, 6, 6, 6), 9 * 4 * 4 * 6),
    "FULLY_CONNECTED": ([(3, 5), [7, 5], [7]], (3, 7), 3 * 5 * 7),
    "CONV_3D": ([(1, 4, 4, 4, 2), [3, 3, 3, 2, 5]], (1, 4, 4, 4, 5), 64 * 5 * 27 * 2),
    "BATCH_MATMUL": ([(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (
        [(1, 6, 5), [4, 5], [4, 4], [4], (1, 4)],
        (1, 6, 4),
        6 * (4 * 5 + 4 * 4),
    ),
    "SVDF": ([(1, 5), [8, 5], [8, 10], [8], (1, 80)], (1, 8), 8 * 5 + 8 * 10),
    "ADD": ([(1, 4), [4]], (1, 4), 0),
    "MAX_POOL_2D": ([(1, 4, 4, 2)], (1, 2, 2, 2), 0),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_multiplications_are_those_of_the_operators_definition(kind, tmp_path):
    inputs, output, macs = OPERATORS[kind]
    writer = Writer()
    indices = [
        writer.weights(*shape) if isinstance(shape, list) else writer.tensor(*shape)
        for shape in inputs
    ]
    writer.operator(kind, indices, writer.tensor(*output))
    cost = writer.cost(tmp_path)
    weights = sum(math.prod(shape) for shape in inputs if isinstance(shape, list))
    assert (cost.macs, cost.parameters, cost.notes) == (macs, weights, ())
    (layer,) = cost.layers
    assert (layer.kind, layer.shape, layer.dtype) == (kind, output, "float32")
    assert layer.read_bytes == 4 * sum(math.prod(shape) for shape in inputs)
    assert layer.written_bytes == 4 * math.prod(output)


def test_a_groups_filters_see_their_share_of_the_channels(tmp_path):
    writer = Writer()
    inputs = [writer.tensor(1, 8, 8, 6), writer.weights(4, 3, 3, 2)]  # 3 groups of 2
    writer.operator("CONV_2D", inputs, writer.tensor(1, 8, 8, 4))
    assert writer.cost(tmp_path).macs == 8 * 8 * 4 * 9 * 2


def test_a_fused_lstm_multiplies_its_eight_matrices_once_a_step(tmp_path):
    writer = Writer()
    given = writer.tensor(1, 10, 3)
    inputs = [given, *(writer.weights(4, 3) for _ in range(4))]
    inputs += [writer.weights(4, 4) for _ in range(4)] + [-1, -1, -1]
    inputs += [writer.weights(4) for _ in range(4)] + [-1, -1]
    inputs += [writer.tensor(1, 4), writer.tensor(1, 4), -1, -1, -1, -1]
    result = writer.operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, writer.tensor(1, 10, 4))
    cost = writer.cost(tmp_path, [given], [result])
    assert cost.macs == 10 * 4 * (4 * 3 + 4 * 4)
    assert cost.parameters == 4 * (4 * 3 + 4 * 4 + 4)
    assert cost.activations_bytes == 4 * (10 * 3 + 10 * 4 + 4 + 4)  # its states live on


@pytest.mark.parametrize(
    ("kind", "size"), [(KINDS.FLOAT32, 80), (KINDS.FLOAT16, 40), (KINDS.INT8, 20), (KINDS.INT4, 10)]
)
def test_weights_are_read_in_the_size_they_are_stored_in(kind, size, tmp_path):
    writer = Writer()
    scales = [0.1] if kind in (KINDS.INT8, KINDS.INT4) else ()
    stored = writer.weights(4, 5, kind=kind, scales=scales)
    weights = stored
    if kind == KINDS.FLOAT16:
        weights = writer.operator("DEQUANTIZE", [stored], writer.tensor(4, 5))
    writer.operator("FULLY_CONNECTED", [writer.tensor(1, 5), weights], writer.tensor(1, 4))
    cost = writer.cost(tmp_path)
    assert [layer.kind for layer in cost.layers] == ["FULLY_CONNECTED"]
    assert (cost.parameters, cost.layers[0].read_bytes) == (20, size + 4 * 5)
    assert cost.layers[0].weights in ("float32", "float16", "int8", "int4")


def test_shapes_and_single_factors_are_no_parameters_and_shared_weights_count_once(tmp_path):
    writer = Writer()
    weights, given = writer.weights(4, 4), writer.tensor(1, 4)
    once = writer.operator("FULLY_CONNECTED", [given, weights], writer.tensor(1, 4))
    twice = writer.operator("FULLY_CONNECTED", [once, weights], writer.tensor(1, 4))
    halved = writer.operator("MUL", [twice, writer.weights(1)], writer.tensor(1, 4))
    shape = writer.weights(2, kind=KINDS.INT32)
    writer.operator("RESHAPE", [halved, shape], writer.tensor(2, 2))
    cost = writer.cost(tmp_path)
    assert (cost.parameters, cost.macs) == (16, 32)
    assert [layer.parameters for layer in cost.layers] == [16, 16, 0, 0]
    assert (cost.layers[3].read_bytes, cost.layers[3].written_bytes) == (0, 0)  # a view


def test_of_a_table_only_the_rows_that_are_taken_are_read(tmp_path):
    writer = Writer()
    table, rows = writer.weights(1000, 8), writer.tensor(3, kind=KINDS.INT32)
    writer.operator("GATHER", [table, rows], writer.tensor(3, 8))
    (layer,) = writer.cost(tmp_path).layers
    assert (layer.parameters, layer.read_bytes) == (8000, 3 * 8 * 4 + 3 * 4)


def test_what_lives_at_once_is_the_peak(tmp_path):
    """A residual: 100 numbers live beside 400 and 100 until they are added, the input all along."""
    writer = Writer()
    given, skip, wide, narrow, added = (writer.tensor(1, n) for n in (10, 100, 400, 100, 100))
    for source, target in ((given, skip), (skip, wide), (wide, narrow)):
        writer.operator("CUSTOM_STEP", [source], target, custom=True)
    writer.operator("ADD", [skip, narrow], added)
    cost = writer.cost(tmp_path, [given], [added])
    assert cost.activations_bytes == 4 * (10 + 100 + 400 + 100)


def keras_loop(writer, *, limit=28, step=1, test="LESS"):
    """Write a loop with a counter from 0 on, whose body is a FULLY_CONNECTED of 4 to 4."""
    integer, start = KINDS.INT32, writer.whole(0)
    state, end, last = (
        writer.tensor(1, 4),
        writer.tensor(1, kind=integer),
        writer.tensor(1, 4),
    )
    writer.operator("WHILE", [start, state], [end, last], loop=(1, 2))
    writer.graph()
    counter, _ = writer.now.inputs = [writer.tensor(1, kind=integer), writer.tensor(1, 4)]
    goes_on = writer.tensor(1, kind=KINDS.BOOL)
    writer.now.outputs = [writer.operator(test, [counter, writer.whole(limit)], goes_on)]
    writer.graph()
    counter, state = writer.now.inputs = [writer.tensor(1, kind=integer), writer.tensor(1, 4)]
    added = writer.operator("ADD", [counter, writer.whole(step)], writer.tensor(1, kind=integer))
    weights = [state, writer.weights(4, 4)]
    made = writer.operator("FULLY_CONNECTED", weights, writer.tensor(1, 4))
    writer.now.outputs = [added, made]


def test_a_loop_that_counts_to_a_constant_is_counted_as_often(tmp_path):
    writer = Writer()
    keras_loop(writer)
    cost = writer.cost(tmp_path)
    assert (cost.macs, cost.parameters, cost.notes) == (28 * 16, 16, ())
    product = next(layer for layer in cost.layers if layer.kind == "FULLY_CONNECTED")
    assert product.read_bytes == 28 * 4 * (4 + 16)


@pytest.mark.parametrize("unlike", [{"step": 2}, {"test": "LESS_EQUAL"}, {"test": "NOT_EQUAL"}])
def test_any_other_loop_is_counted_once_and_told(unlike, tmp_path):
    writer = Writer()
    keras_loop(writer, **unlike)
    cost = writer.cost(tmp_path)
    assert cost.macs == 16
    assert cost.notes[0].startswith("WHILE: how often it runs")


def test_a_loop_of_subgraphs_that_are_not_there_is_damaged(tmp_path):
    writer = Writer()
    writer.operator("WHILE", [writer.tensor(1)], writer.tensor(1), loop=(1, 2))
    with pytest.raises(ModelError, match="a loop of subgraphs that are not there"):
        writer.cost(tmp_path)


def test_what_cannot_be_known_is_said(tmp_path):
    writer = Writer()
    given, looped, mine = (writer.tensor(1, 4) for _ in range(3))
    writer.operator("WHILE", [given], looped)
    writer.operator("MyOperator", [looped], mine, custom=True)
    writer.graph()
    inside = [writer.tensor(1, 4), writer.weights(4, 4)]
    writer.operator("FULLY_CONNECTED", inside, writer.tensor(1, 4))
    cost = writer.cost(tmp_path, [given], [mine])
    assert (cost.macs, cost.parameters) == (16, 16)
    loop, custom = cost.notes
    assert loop.startswith("WHILE: how often it runs")
    assert custom.startswith("MyOperator: not an operator of LiteRT's own")


def test_an_operator_with_too_few_inputs_is_told_not_raised(tmp_path):
    writer = Writer()
    writer.operator("CONV_2D", [writer.tensor(1, 4, 4, 1)], writer.tensor(1, 4, 4, 1))
    cost = writer.cost(tmp_path)
    assert cost.macs == 0
    assert "fewer inputs" in cost.notes[0]


def test_the_peak_is_what_the_engine_allocates(segmenter_bundle):
    """The engine's own arena, by the addresses of its tensors; plain kernels, no XNNPACK."""
    bundle = read_bundle(segmenter_bundle)
    interpreter = litert.Interpreter(
        str(bundle.model_path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    cost = cost_of(bundle)
    activations = {layer.name for layer in cost.layers}
    activations |= {detail["name"] for detail in interpreter.get_input_details()}
    spans = []
    for detail in interpreter.get_tensor_details():
        if detail["name"] in activations:
            view = interpreter.tensor(detail["index"])()
            start = view.__array_interface__["data"][0]
            spans.append((start, start + view.nbytes))
    arena = max(end for _, end in spans) - min(start for start, _ in spans)
    assert arena * 0.85 <= cost.activations_bytes <= arena  # it aligns to 64 bytes


def test_files_that_are_not_there_or_damaged_are_one_error(tmp_path):
    with pytest.raises(ModelError, match="cannot read model"):
        cost_of_file(tmp_path / "none.tflite", "litert")
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(ModelError, match=r"is not a \.tflite file"):
        cost_of_file(tmp_path / "empty.tflite", "litert")


@pytest.mark.parametrize("name", ["_graph", "no-such", "__init__", "../litert", ""])
def test_a_format_that_nothing_here_reads_has_no_cost(name, tmp_path):
    assert cost_of_file(tmp_path / "x", name) is None
