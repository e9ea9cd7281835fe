"""Float `.tflite` to integers: grids, what shares them, boundaries of precisions, odd files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.convert
tf = pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")

from edgekit.converters.observe import observe  # noqa: E402
from edgekit.converters.quantize.ranges import Range  # noqa: E402
from edgekit.converters.sources.graph import freeze  # noqa: E402
from edgekit.converters.tflite.convert import convert_graph  # noqa: E402
from edgekit.converters.tflite.flatbuffer import pack, schema, unpack  # noqa: E402
from edgekit.converters.tflite.graph import FloatGraph  # noqa: E402
from edgekit.converters.tflite.grids import (  # noqa: E402
    grid_of,
    quantized_bias,
    quantized_weights,
)
from edgekit.converters.tflite.observe import TfliteProbe  # noqa: E402
from edgekit.converters.tflite.quantize_static import quantize_static  # noqa: E402
from edgekit.runtime.tflite import describe_tflite  # noqa: E402
from edgekit.specs import TensorSpec  # noqa: E402

IMAGE = (1, 8, 8, 4)
RNG = np.random.default_rng(0)
KERNELS = [(RNG.standard_normal((3, 3, 4, 4)) / 6).astype(np.float32) for _ in range(4)]


def conv(x, number=0, gain=1.0):
    return tf.nn.conv2d(x, KERNELS[number] * gain, 1, "SAME")


def float_model(function, *shapes, outputs=1):
    specs = tuple(TensorSpec(f"x{n}", shape, "float32") for n, shape in enumerate(shapes))
    call = function if outputs > 1 else lambda *tensors: [function(*tensors)]
    return convert_graph(freeze("test", call, specs, [f"y{n}" for n in range(outputs)]))


def samples_of(content, count=16, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [spec.shape for spec in describe_tflite(content, "float").inputs]
    return [tuple(rng.standard_normal(s).astype(np.float32) for s in shapes) for _ in range(count)]


def ranges_of(content):
    return observe(TfliteProbe(content), lambda: iter(samples_of(content))).ranges()


def names_of(content):
    tensors = unpack(content).subgraphs[0].tensors
    return {index: tensor.name.decode() for index, tensor in enumerate(tensors)}


def quantized(content, precision="int8", precisions=None, ranges=None):
    found = {**ranges_of(content), **(ranges or {})}
    names = names_of(content)
    return quantize_static(content, found, names=names, precision=precision, precisions=precisions)


def kinds(content):
    return [operator.name for operator in describe_tflite(content, "model").operators]


def run(content, sample):
    """Return the outputs as real numbers."""
    description = describe_tflite(content, "model")
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    pairs = zip(interpreter.get_input_details(), description.inputs, sample, strict=True)
    for detail, spec, array in pairs:
        interpreter.set_tensor(detail["index"], spec.quantize(array))
    interpreter.invoke()
    pairs = zip(interpreter.get_output_details(), description.outputs, strict=True)
    return [spec.dequantize(interpreter.get_tensor(d["index"])) for d, spec in pairs]


def snr_db(content, integers):
    """Return signal to noise of each output, in dB."""
    signal = noise = 0.0
    for sample in samples_of(content, 4):
        pairs = list(zip(run(content, sample), run(integers, sample), strict=True))
        signal += np.array([(w.astype(float) ** 2).sum() for w, _ in pairs])
        noise += np.array([((w - g.astype(float)) ** 2).sum() for w, g in pairs])
    return 10 * np.log10(signal / np.maximum(noise, 1e-12 * signal))


# Grids

REAL = st.floats(-1e6, 1e6, width=32)


@given(REAL, REAL, st.sampled_from(["int8", "int16"]), st.sampled_from(["litert", "tensorrt"]))
def test_a_grid_holds_zero_and_its_range_to_half_a_step(one, other, dtype, scheme):
    found = Range(min(one, other), max(one, other))
    grid = grid_of(found, dtype, scheme)
    limits = np.iinfo(dtype)
    assert 0 < grid.scale < np.inf and np.float32(grid.scale) == grid.scale
    assert limits.min <= grid.zero_point <= limits.max
    assert scheme == "litert" and dtype == "int8" or grid.zero_point == 0
    assert grid.quantize(np.zeros(1))[0] == grid.zero_point
    values = np.linspace(found.min, found.max, 77)
    back = (grid.quantize(values).astype(float) - grid.zero_point) * grid.scale
    # Rounding the zero point moves the ends by another half.
    inside = np.abs(values) < (0.998 if grid.zero_point else 2) * max(-found.min, found.max)
    assert np.abs(back - values)[inside].max(initial=0) <= grid.scale * 0.5001
    assert np.abs(back - values).max() <= grid.scale * 1.01


@given(st.floats(0, 1e3), st.floats(1e-3, 1e3))
def test_both_ends_stay_on_an_int8_grid_that_is_hardly_coarser(below, above):
    grid = grid_of(Range(-below, above), "int8")
    step = (below + above) / 255
    assert grid.scale <= 1.011 * step
    lowest, highest = ((end - grid.zero_point) * grid.scale for end in (-128, 127))
    assert lowest <= -below + 0.011 * step and highest >= above - 0.011 * step


@given(st.integers(0, 2**32 - 1), st.floats(-30, 10), st.floats(-30, 10), st.booleans())
def test_weights_are_within_half_a_step_and_fit_the_kernels(seed, log_gain, log_out, has_bias):
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal((5, 3, 3, 2)) * 10 ** rng.uniform(-6, 3, (5, 1, 1, 1))) * 1.0
    weights[2] = 0
    weights = weights.astype(np.float32)
    bias = (rng.standard_normal(5) * 10 ** rng.uniform(-6, 6, 5)).astype(np.float32)
    into, out = 2.0**log_gain, 2.0**log_out
    whole, scales = quantized_weights(weights, 0, bias if has_bias else None, into, out)
    assert whole.dtype == np.int8 and np.abs(whole.astype(int)).max() <= 127
    assert (scales > 0).all() and np.isfinite(scales).all()
    error = np.abs(whole * scales.reshape(-1, 1, 1, 1).astype(float) - weights)
    assert (error <= scales.reshape(-1, 1, 1, 1) * 0.5001).all()
    assert (scales * into / out >= 2.0**-31).all()
    if has_bias:
        steps = scales.astype(float) * into
        stored = quantized_bias(bias, steps, "int8")
        assert np.abs(stored * steps - bias).max() <= max(steps.max(), 1e-6 * np.abs(bias).max())


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("width", [0.0, 1e-45, 1e-38, 1e-8])
def test_a_range_of_hardly_any_width_has_a_grid(width, dtype):
    grid = grid_of(Range(-width, width), dtype)
    assert grid.scale > 0.9e-12
    assert grid.quantize(np.zeros(3)).tolist() == [grid.zero_point] * 3


# What shares a grid


def test_concatenations_of_concatenations_need_no_requantization():
    def dense(x):
        a = conv(x)
        b = tf.concat([a, conv(a, 1)], 3)
        return tf.concat([b, tf.nn.max_pool2d(a, 3, 1, "SAME")], 3) * 2.0

    content = float_model(dense, IMAGE)
    done = quantized(content)
    assert "QUANTIZE" not in kinds(done.content)
    assert snr_db(content, done.content)[0] > 28


def test_what_others_read_keeps_a_fine_grid_beside_a_wide_one():
    def function(x):
        fine = conv(x, 0, 0.02)
        return [tf.concat([fine, conv(x, 1, 10.0)], 3), conv(fine, 2, 10.0)]

    content = float_model(function, IMAGE, outputs=2)
    done = quantized(content)
    assert kinds(done.content).count("QUANTIZE") == 1
    assert snr_db(content, done.content)[1] > 28


def test_the_other_half_of_a_split_keeps_its_grid():
    def function(x):
        one, other = tf.split(conv(x, 0, 0.02), 2, axis=3)
        return [tf.concat([one, conv(x, 1, 10.0)], 3), other * 3.0]

    content = float_model(function, IMAGE, outputs=2)
    assert snr_db(content, quantized(content).content)[1] > 28


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [tf.minimum(conv(x), 0.3), conv(x) * 2.0],
        lambda x: [tf.minimum(tf.nn.avg_pool2d(conv(x), 2, 2, "VALID"), 0.1), x * 0.5],
        lambda x: [tf.maximum(tf.image.resize(conv(x), (5, 5)), 0.2), x * 0.5],
    ],
    ids=["several readers", "average", "resize"],
)
def test_a_limit_clips_nothing_before_it(function):
    content = float_model(function, IMAGE, outputs=2)
    assert min(snr_db(content, quantized(content).content)) > 28


def test_an_input_keeps_its_grid_in_a_concatenation():
    content = float_model(lambda x: tf.concat([x, conv(x)], 3), IMAGE)
    ranges = ranges_of(content)
    done = quantized(content).content
    (spec,) = describe_tflite(done, "model").inputs
    (index,) = unpack(content).subgraphs[0].inputs
    assert spec.scale == grid_of(ranges[index], "int8").scale


def test_pad_with_a_value_beyond_the_range_widens_it():
    def function(x):
        padded = tf.pad(conv(x), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=9.0)
        return tf.nn.max_pool2d(padded, 2, 2, "VALID")

    content = float_model(function, IMAGE)
    done = quantized(content).content
    assert "QUANTIZE" not in kinds(done)
    assert snr_db(content, done)[0] > 30


# Inputs and outputs


def test_outputs_that_are_read_inside_and_outputs_of_one_tensor():
    content = float_model(lambda x: [conv(x), tf.nn.relu(conv(x)) * 2.0], IMAGE, outputs=2)
    model = unpack(content)
    graph = model.subgraphs[0]
    graph.outputs = np.array([*graph.outputs, graph.outputs[0], graph.inputs[0]], np.int32)
    content = pack(model)
    layer = names_of(content)[int(graph.outputs[0])]
    for precisions in ({}, {layer: "fp32"}, {layer: "int16x8"}):
        done = quantized(content, precisions=precisions).content
        description = describe_tflite(done, "model")
        assert [spec.dtype for spec in description.outputs] == ["int8"] * 4
        wanted = [spec.name for spec in describe_tflite(content, "float").outputs]
        assert [spec.name for spec in description.outputs] == wanted
        assert min(snr_db(content, done)) > 28


def test_several_inputs_and_integer_outputs():
    content = float_model(
        lambda a, b: [a[:, :, 0, 0] @ tf.ones((8, 3)) + b, tf.argmax(b, -1, tf.int32)],
        IMAGE,
        (1, 3),
        outputs=2,
    )
    done = quantized(content)
    description = describe_tflite(done.content, "model")
    assert [spec.dtype for spec in description.inputs] == ["int8", "int8"]
    assert [spec.dtype for spec in description.outputs] == ["int8", "int32"]
    assert snr_db(content, done.content)[0] > 28


def test_signatures_and_metadata_follow(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec(IMAGE, tf.float32, name="image")])
        def call(self, image):
            return {"score": tf.nn.relu(conv(image)), "raw": conv(image)}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert()
    names = names_of(content)
    raw = next(names[int(i)] for i in unpack(content).subgraphs[0].outputs)
    done = quantized(content, precisions={raw: "fp32"}).content
    interpreter = litert.Interpreter(model_content=done)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["raw", "score"]}
    }
    runner = interpreter.get_signature_runner()
    (spec,) = describe_tflite(done, "model").inputs
    result = runner(image=spec.quantize(samples_of(content)[0][0]))
    assert {name: array.dtype.name for name, array in result.items()} == {
        "raw": "int8",
        "score": "int8",
    }
    given = [entry.name for entry in unpack(content).metadata]
    assert [entry.name for entry in unpack(done).metadata] == given


# Constants


def test_weights_of_dead_channels_huge_biases_and_shared_ones():
    kernel = KERNELS[0].copy()
    kernel[..., 1] = 0
    bias = np.float32([1e5, 3.0, 0.0, -1e-9])

    def function(x):
        once = tf.nn.conv2d(x, kernel, 1, "SAME")
        return [once + bias, tf.nn.conv2d(once, kernel, 1, "SAME") + 0.0 * bias]

    content = float_model(function, IMAGE, outputs=2)
    done = quantized(content)
    assert done.fallbacks == ()
    assert min(snr_db(content, done.content)) > 25


@pytest.mark.parametrize("gain", [0.0, 1e-30, 1e-8, 1e8])
@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_activations_of_any_size(gain, precision):
    content = float_model(lambda x: conv(conv(x, 0, gain), 1) + 1.0, IMAGE)
    done = quantized(content, precision)
    assert snr_db(content, done.content)[0] > 25


@pytest.mark.parametrize("shift", [-9.0, 9.0])
def test_activations_of_one_sign(shift):
    content = float_model(lambda x: conv(tf.nn.relu6(x) + shift), IMAGE)
    assert snr_db(content, quantized(content).content)[0] > 28


@pytest.mark.parametrize("name", ["conv", "transposed"])
def test_a_range_too_narrow_for_the_kernel_becomes_the_least_it_takes(name):
    layer = {
        "conv": lambda x: conv(x, 1),
        "transposed": lambda x: tf.nn.conv2d_transpose(x, KERNELS[1], IMAGE, 1, "SAME"),
    }[name]
    content = float_model(lambda x: [layer(conv(x)), x * 0.5], IMAGE, outputs=2)
    first = int(unpack(content).subgraphs[0].outputs[0])
    done = quantized(content, ranges={first: Range(-1e-7, 1e-7)}).content
    clipped, beside = run(done, samples_of(content)[0])
    assert 1e-7 < np.abs(clipped).max() < 1e-2
    assert np.abs(beside).max() > 1


def test_scalars_without_a_shape():
    content = float_model(lambda x: tf.reduce_mean(x) * 2.0, IMAGE)
    model = unpack(content)
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape is not None and len(tensor.shape) == 0:
            tensor.shape = None
    content = pack(model)
    assert snr_db(content, quantized(content).content)[0] > 20


def test_computed_and_sparse_weights_stay_float():
    content = float_model(lambda x: tf.nn.conv2d(x, tf.reshape(x, (8, 8, 4, 1)), 1, "SAME"), IMAGE)
    done = quantized(content)
    assert [fallback.what.split()[0] for fallback in done.fallbacks] == ["CONV_2D"]
    assert "computed or sparse" in done.fallbacks[0].reason
    assert snr_db(content, done.content)[0] > 28
    model = unpack(float_model(lambda x: conv(x) + 1.0, IMAGE))
    (operator,) = model.subgraphs[0].operators
    weights = model.subgraphs[0].tensors[operator.inputs[1]]
    weights.sparsity = schema().SparsityParametersT()
    model.buffers[weights.buffer].data = model.buffers[weights.buffer].data[:40]
    content = pack(model)
    (output,) = model.subgraphs[0].outputs
    wide = {int(index): Range(-1, 1) for index in (*model.subgraphs[0].inputs, output)}
    done = quantize_static(content, wide, names=names_of(content))
    assert "computed or sparse" in done.fallbacks[0].reason


def test_constants_behind_the_flatbuffer():
    content = float_model(lambda x: conv(conv(x), 1) + 2.0, IMAGE)
    model, behind = unpack(content), b""
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 100:
            buffer.offset, buffer.size = 1, 1  # takes the place of the values, filled in below
    for fill in range(2):  # the first pass tells how long the FlatBuffer is
        start, behind = len(pack(model)) if fill else 2, b""
        for buffer, source in zip(model.buffers, unpack(content).buffers, strict=True):
            if buffer.offset:
                buffer.data = None
                buffer.offset, buffer.size = start + len(behind), len(source.data)
                behind += source.data.tobytes()
    large = pack(model) + behind
    assert len(behind) > 1000
    assert describe_tflite(large, "large").tensors == describe_tflite(content, "float").tensors
    assert FloatGraph(large, {}).constants.keys() == FloatGraph(content, {}).constants.keys()
    ranges = ranges_of(content)
    done = quantize_static(large, ranges, names=names_of(content))
    assert done == quantize_static(content, ranges, names=names_of(content))


def test_constants_are_aligned_in_the_file():
    done = quantized(float_model(lambda x: conv(conv(x), 1)[:, :3] + 2.0, IMAGE)).content
    start = np.frombuffer(done, np.uint8).ctypes.data
    constants = [b.data for b in unpack(done).buffers if b.data is not None and len(b.data)]
    assert len(constants) > 4
    assert [(values.ctypes.data - start) % 16 for values in constants] == [0] * len(constants)


# Precisions


def test_versions_are_at_least_those_of_tensorflows_converter():
    def function(x):
        x = tf.nn.relu(conv(x))
        x = tf.nn.depthwise_conv2d(x, KERNELS[1][..., :1], [1, 1, 1, 1], "SAME") + x
        x = tf.concat([x, tf.nn.max_pool2d(x, 2, 1, "SAME")], 3)
        return tf.nn.softmax(tf.reduce_mean(x, (1, 2)) @ np.ones((8, 3), np.float32))

    spec = (TensorSpec("x", IMAGE, "float32"),)
    source = freeze("test", lambda x: [function(x)], spec, ["y"])
    content = convert_graph(source)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([source.concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([*sample] for sample in samples_of(content))
    with pytest.warns(UserWarning, match="Statistics"):
        theirs = versions_of(converter.convert())
    ours = versions_of(quantized(content).content)
    assert {kind: max(ours[kind], version) for kind, version in theirs.items() if kind in ours} == {
        kind: version for kind, version in ours.items() if kind in theirs
    }
    assert len(ours) > 6


def versions_of(content):
    numbers = schema().BuiltinOperator
    names = {number: name for name, number in vars(numbers).items() if name[0] != "_"}
    codes = unpack(content).operatorCodes
    return {names[max(c.builtinCode, c.deprecatedBuiltinCode)]: c.version for c in codes}


def branches(x):
    a = tf.nn.relu(conv(x))
    b = conv(a, 1) + a
    c = tf.concat([b, tf.nn.avg_pool2d(a, 2, 1, "SAME")], 3)
    d = tf.reshape(tf.nn.max_pool2d(c, 2, 2, "VALID"), (1, 128))
    return tf.nn.softmax(tf.tanh(d @ np.ones((128, 3), np.float32) * np.float32([1, -1, 2]) / 30))


@pytest.mark.parametrize("precision", ["int8", "int16x8", "fp32"])
@pytest.mark.parametrize("seed", range(4))
def test_any_mix_of_precisions_runs_and_is_what_was_asked(precision, seed):
    content = float_model(branches, IMAGE)
    rng = np.random.default_rng(seed)
    graph = FloatGraph(content, names_of(content))
    layers = [graph.label(operator.outputs[0]) for operator in graph.operators]
    mix = {name: str(rng.choice(["int8", "int16x8", "fp32"])) for name in layers}
    done = quantized(content, precision, mix)
    assert {name: chosen for name, _, chosen in done.operators} == mix
    raised = [name for name, chosen in mix.items() if chosen != precision]
    assert [fallback.what.split(" ", 1)[1] for fallback in done.fallbacks] == raised
    description = describe_tflite(done.content, "model")
    dtype = {"int8": "int8", "int16x8": "int16", "fp32": "float32"}
    assert {s.dtype for s in (*description.inputs, *description.outputs)} == {dtype[precision]}
    computed = {o.outputs[0].name: o.outputs[0].dtype for o in description.operators}
    inner = layers[:-1]  # the last has become another tensor if it had to be converted
    assert [computed[name] for name in inner] == [dtype[mix[name]] for name in inner]
    assert snr_db(content, done.content)[0] > 28


def test_layers_without_a_range_stay_float_and_are_named():
    content = float_model(lambda x: conv(conv(x), 1), IMAGE)
    first, second = (int(o.outputs[0]) for o in unpack(content).subgraphs[0].operators)
    ranges = {index: r for index, r in ranges_of(content).items() if index != first}
    done = quantize_static(content, ranges, names={first: "early", second: "late"})
    assert [fallback.what for fallback in done.fallbacks] == ["CONV_2D early", "CONV_2D late"]
    assert all("no range for early" in fallback.reason for fallback in done.fallbacks)
    assert snr_db(content, done.content)[0] > 28
