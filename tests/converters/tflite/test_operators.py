"""Each operator of the table, in integers, beside itself in float."""

import numpy as np
import pytest

pytestmark = pytest.mark.convert
tf = pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")

from edgekit.converters.formats.litert import emit  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.sources.graph import freeze  # noqa: E402
from edgekit.converters.tflite.convert import convert_graph  # noqa: E402
from edgekit.converters.tflite.flatbuffer import pack, schema, unpack  # noqa: E402
from edgekit.converters.tflite.operators import OPERATORS  # noqa: E402
from edgekit.runtime.tflite import describe_tflite  # noqa: E402
from edgekit.specs import TensorSpec  # noqa: E402

RNG = np.random.default_rng(0)
IMAGE = (1, 8, 8, 4)
ROWS = (1, 12)


def weights(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(shape[0] * shape[1])).astype(np.float32)


KERNEL, DEPTHWISE, BIAS = weights(3, 3, 4, 6), weights(3, 3, 4, 1), weights(1, 6)[0]
DENSE, SQUARE = weights(12, 5), weights(1, 6, 12)
ALPHA = np.abs(weights(1, 1, 1, 4)[0])
CASES = {
    "CONV_2D": (IMAGE, lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME") + BIAS),
    "DEPTHWISE_CONV_2D": (
        IMAGE,
        lambda x: tf.nn.depthwise_conv2d(x, DEPTHWISE, [1, 1, 1, 1], "SAME"),
    ),
    "FULLY_CONNECTED": (ROWS, lambda x: x @ DENSE + 0.1),
    "TRANSPOSE_CONV": (
        IMAGE,
        lambda x: tf.nn.conv2d_transpose(x, np.moveaxis(KERNEL, 3, 2), (1, 16, 16, 6), 2, "SAME"),
    ),
    "SOFTMAX": (ROWS, lambda x: tf.nn.softmax(3 * x)),
    "LOGISTIC": (ROWS, tf.sigmoid),
    "TANH": (ROWS, tf.tanh),
    "L2_NORMALIZATION": (ROWS, lambda x: tf.math.l2_normalize(x, axis=-1)),
    "LOG_SOFTMAX": (ROWS, tf.nn.log_softmax),
    "ADD": (IMAGE, lambda x: x + 0.5 * x[:, ::-1]),
    "SUB": (IMAGE, lambda x: x - 0.5 * x[:, ::-1]),
    "MUL": (IMAGE, lambda x: x * x[:, ::-1]),
    "BATCH_MATMUL": ((1, 6, 12), lambda x: tf.matmul(x, x, transpose_b=True)),
    "MEAN": (IMAGE, lambda x: tf.reduce_mean(x, (1, 2))),
    "LEAKY_RELU": (IMAGE, lambda x: tf.nn.leaky_relu(x, 0.1)),
    "RELU": (IMAGE, tf.nn.relu),
    "RELU6": (IMAGE, lambda x: tf.nn.relu6(tf.concat([x, 4 * x], 3))),
    "RELU_N1_TO_1": (IMAGE, lambda x: tf.clip_by_value(tf.concat([x, x], 3), -1.0, 1.0)),
    "HARD_SWISH": (IMAGE, lambda x: x * tf.nn.relu6(x + 3) * (1 / 6)),
    "SUM": (IMAGE, lambda x: tf.reduce_sum(x, (1, 2))),
    "EXP": (ROWS, tf.exp),
    "RSQRT": (ROWS, lambda x: tf.math.rsqrt(tf.nn.relu6(x) + 0.5)),
    "ABS": (ROWS, tf.abs),
    "PRELU": (IMAGE, lambda x: tf.nn.relu(x) + -ALPHA * tf.nn.relu(-x)),
    "ELU": (IMAGE, tf.nn.elu),
    "GELU": (IMAGE, lambda x: tf.nn.gelu(x, approximate=True)),
    "SQUARED_DIFFERENCE": (IMAGE, lambda x: tf.math.squared_difference(x, x[:, ::-1])),
    "ARG_MAX": (ROWS, lambda x: tf.argmax(x, axis=-1, output_type=tf.int32)),
    "AVERAGE_POOL_2D": (IMAGE, lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID")),
    "MAX_POOL_2D": (IMAGE, lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID")),
    "RESHAPE": (IMAGE, lambda x: tf.reshape(x, (1, 16, 16))),
    "SQUEEZE": ((1, 1, 12), lambda x: tf.squeeze(x, 1)),
    "EXPAND_DIMS": (ROWS, lambda x: tf.expand_dims(x, 1)),
    "TRANSPOSE": (IMAGE, lambda x: tf.transpose(x, (0, 2, 3, 1))),
    "PAD": (IMAGE, lambda x: tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))),
    "PADV2": (IMAGE, lambda x: tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=5.0)),
    "MIRROR_PAD": (
        IMAGE,
        lambda x: tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="REFLECT"),
    ),
    "CONCATENATION": (IMAGE, lambda x: tf.concat([x, 2 * tf.nn.relu(x)], 3)),
    "PACK": (ROWS, lambda x: tf.stack([x, 2 * x], 1)),
    "STRIDED_SLICE": (IMAGE, lambda x: x[:, ::2]),
    "SLICE": (IMAGE, lambda x: tf.slice(x, (0, 1, 1, 0), (1, 4, 4, 4))),
    "SPLIT": (IMAGE, lambda x: tf.split(x, 2, axis=3)[0] * 2),
    "SPLIT_V": (IMAGE, lambda x: tf.split(x, [1, 3], axis=3)[1] * 2),
    "UNPACK": (IMAGE, lambda x: tf.unstack(x, axis=1)[3]),
    "GATHER": (IMAGE, lambda x: tf.gather(x, [3, 0, 5], axis=1)),
    "RESIZE_BILINEAR": (IMAGE, lambda x: tf.image.resize(x, (16, 16))),
    "RESIZE_NEAREST_NEIGHBOR": (IMAGE, lambda x: tf.image.resize(x, (16, 16), "nearest")),
    "REDUCE_MAX": (IMAGE, lambda x: tf.reduce_max(x, (1, 2))),
    "REDUCE_MIN": (IMAGE, lambda x: tf.reduce_min(x, (1, 2))),
    "MAXIMUM": (IMAGE, lambda x: tf.maximum(x, x[:, ::-1])),
    "MINIMUM": (IMAGE, lambda x: tf.minimum(x, 0.3)),
    "REVERSE_V2": (IMAGE, lambda x: tf.reverse(x, [1])),
    "TILE": (IMAGE, lambda x: tf.tile(x, (1, 2, 1, 1))),
    "SPACE_TO_DEPTH": (IMAGE, lambda x: tf.nn.space_to_depth(x, 2)),
    "DEPTH_TO_SPACE": (IMAGE, lambda x: tf.nn.depth_to_space(x, 2)),
    "GATHER_ND": (IMAGE, lambda x: tf.gather_nd(x, [[0, 1], [0, 5]])),
    "SELECT_V2": (IMAGE, lambda x: tf.where(np.eye(8, dtype=bool)[..., None], x, 0.5 * x)),
    "SPACE_TO_BATCH_ND": (IMAGE, lambda x: tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])),
    "BATCH_TO_SPACE_ND": (
        IMAGE,
        lambda x: tf.batch_to_space(tf.tile(x, (4, 1, 1, 1)), [2, 2], [[0, 0], [0, 0]]),
    ),
    "BROADCAST_TO": (ROWS, lambda x: tf.broadcast_to(x, (7, 12))),
}


def source_of(kind, folder):
    shape, function = CASES[kind]
    spec = TensorSpec("x", shape, "float32")
    source = freeze("test", lambda x: [function(x)], (spec,), ["y"])
    if kind not in ("SQUEEZE", "EXPAND_DIMS"):
        return source
    path = folder / "model.tflite"  # TensorFlow writes RESHAPE; other converters do not
    path.write_bytes(with_reshape_as(kind, convert_graph(source)))
    return open_source(path, scratch=folder)


def with_reshape_as(kind, content):
    model, classes = unpack(content), schema()
    (operator,) = model.subgraphs[0].operators
    code = getattr(classes.BuiltinOperator, kind)
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = code
    if kind == "SQUEEZE":
        operator.inputs = operator.inputs[:1]
        operator.builtinOptionsType = classes.BuiltinOptions.SqueezeOptions
        operator.builtinOptions = classes.SqueezeOptionsT()
        operator.builtinOptions.squeezeDims = [1]
    else:
        axis = model.subgraphs[0].tensors[operator.inputs[1]]
        axis.shape = [1]
        model.buffers[axis.buffer].data = np.frombuffer(np.int32([1]).tobytes(), np.uint8)
        operator.builtinOptionsType = classes.BuiltinOptions.ExpandDimsOptions
        operator.builtinOptions = classes.ExpandDimsOptionsT()
    return pack(model)


def samples(shape, count=16, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(shape).astype(np.float32),) for _ in range(count)]


def run(content, sample):
    description = describe_tflite(content, "model")
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], description.inputs[0].quantize(sample[0]))
    interpreter.invoke()
    (detail,) = interpreter.get_output_details()
    return description.outputs[0].dequantize(interpreter.get_tensor(detail["index"]))


def test_every_operator_of_the_table_has_a_case():
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("kind", list(CASES))
def test_operator_runs_in_integers(kind, precision, tmp_path):
    source = source_of(kind, tmp_path)
    data = samples(source.inputs[0].shape)
    emitted = emit(source, precision, lambda: iter(data))
    operators = describe_tflite(emitted.content, kind).operators
    assert kind in {operator.name for operator in operators}
    if precision == "int16x8" and not OPERATORS[kind].has_int16:
        assert kind in {fallback.what.split()[0] for fallback in emitted.fallbacks}
    else:
        assert emitted.fallbacks == ()
        assert all(
            tensor is None or tensor.dtype != "float32"
            for operator in operators
            for tensor in (*operator.inputs, *operator.outputs)
        )
    signal = noise = 0.0
    for sample in data[:4]:
        wanted = source.predict(sample)[0]
        signal += float((wanted.astype(float) ** 2).sum())
        noise += float(((wanted - run(emitted.content, sample)) ** 2).sum())
    least_db = {"int8": 25, "int16x8": 35}[precision]
    assert 10 * np.log10(signal / max(noise, 1e-12 * signal)) > least_db
