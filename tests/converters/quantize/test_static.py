"""Rounding, bias correction, and what they are worth in the `.tflite`."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")

from edgekit.converters.formats.litert import emit  # noqa: E402
from edgekit.converters.quantize import walk  # noqa: E402
from edgekit.converters.quantize.correct import fake_quantize  # noqa: E402
from edgekit.converters.quantize.linear import (  # noqa: E402
    from_columns,
    output_range,
    patches,
    per_output,
    to_columns,
    weights_of,
)
from edgekit.converters.quantize.rounding import (  # noqa: E402
    error_of,
    grid_of,
    rounded_kernel,
)
from edgekit.converters.quantize.static import prepare_static  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.errors import DataError  # noqa: E402

layers = keras.layers
LINEAR = {
    "conv": (layers.Conv2D(6, 3, strides=2, padding="same"), (9, 9, 4)),
    "dilated": (layers.Conv2D(6, 3, dilation_rate=2), (9, 9, 4)),
    "grouped": (layers.Conv2D(6, 3, groups=2), (9, 9, 4)),
    "depthwise": (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (9, 9, 4)),
    "conv 1-D": (layers.Conv1D(6, 3, strides=2), (20, 4)),
    "causal": (layers.Conv1D(6, 3, dilation_rate=2, padding="causal"), (20, 4)),
    "depthwise 1-D": (layers.DepthwiseConv1D(3), (20, 4)),
    "dense": (layers.Dense(6), (5, 40)),
}
TRANSPOSED = {"transposed": (layers.Conv2DTranspose(6, 2, strides=2), (9, 9, 4))}


def built(layer, shape, seed=0):
    """Return a fresh copy of a layer, built, and correlated inputs for it."""
    random = np.random.default_rng(seed)
    copy = type(layer).from_config(layer.get_config())
    inputs = random.normal(0, 1, (16, *shape)).cumsum(axis=-1).cumsum(axis=1).astype("float32")
    copy(inputs[:1])
    copy.set_weights([random.normal(0, 1, w.shape) for w in copy.get_weights()])
    return copy, inputs


def moments_of(layer, inputs):
    rows = patches(layer, inputs, 10_000, np.random.default_rng(0)).astype(float)
    return rows.swapaxes(1, 2) @ rows


@pytest.mark.parametrize("name", LINEAR)
def test_patches_times_columns_are_what_the_layer_computes(name):
    layer, inputs = built(*LINEAR[name])
    kernel, bias = weights_of(layer)
    rows = patches(layer, inputs, 10**6, np.random.default_rng(0))
    product = rows @ to_columns(layer, kernel)
    wanted = np.asarray(layer(inputs)) - bias
    given = product.transpose(1, 0, 2).reshape(wanted.shape)
    np.testing.assert_allclose(given, wanted, atol=1e-4)


@pytest.mark.parametrize("name", [*LINEAR, *TRANSPOSED])
def test_adapted_rounding_errs_less_than_the_nearest_and_keeps_the_grid(name):
    layer, inputs = built(*(LINEAR | TRANSPOSED)[name])
    kernel, _ = weights_of(layer)
    moments = moments_of(layer, inputs)
    adapted, nearest = rounded_kernel(layer, moments), rounded_kernel(layer, None)
    step = per_output(layer, grid_of(layer))
    whole = adapted / step
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
    assert np.abs(whole).max() < 127.001
    np.testing.assert_allclose(output_range(layer, adapted), output_range(layer, kernel), 1e-6)
    assert np.array_equal(from_columns(layer, to_columns(layer, kernel)), kernel)
    errors = [
        error_of(to_columns(layer, (kernel - rounded) / step), moments)
        for rounded in (adapted, nearest)
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-9)).all()
    assert errors[0].sum() < 0.8 * errors[1].sum()


def test_inputs_that_are_always_zero_do_not_break_the_rounding():
    layer, inputs = built(*LINEAR["conv"])
    inputs[..., 1] = 0
    assert np.isfinite(rounded_kernel(layer, moments_of(layer, inputs))).all()
    assert np.isfinite(rounded_kernel(layer, moments_of(layer, 0 * inputs))).all()


def test_fake_quantization_errs_at_most_half_a_step_and_keeps_zero():
    values = np.random.default_rng(0).normal(1, 3, (4, 50)).astype("float32")
    values[0, 0] = 0
    batches = [values]
    fake_quantize(batches)
    (result,) = batches
    step = (values.max() - values.min()) / 255
    assert np.abs(result - values)[1:].max() <= step * 1.01
    assert result[0, 0] == 0
    assert len(np.unique(result)) > 100


def mobilenet_like(sigma, seed=0):
    """Return a ReLU net whose channels are uneven by exp(normal(0, sigma)), its function not."""
    random = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    image = keras.Input((16, 16, 3))
    made = [layers.Conv2D(16, 3, strides=2, padding="same")]
    for channels in (24, 32):
        made += [layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(channels, 1)]
    tensor = image
    for layer in made:
        tensor = layers.ReLU()(layer(tensor))
    made.append(layers.Dense(10))
    model = keras.Model(image, made[-1](layers.GlobalAveragePooling2D()(tensor)))
    for layer in made:
        kernel, bias = layer.get_weights()
        layer.set_weights([2 * kernel, random.normal(0, 0.1, bias.shape)])
    for before, after in zip(made, made[1:], strict=False):
        kernel, bias = before.get_weights()
        factors = np.exp(random.normal(0, sigma, bias.shape))
        shaped = factors[:, None] if isinstance(before, layers.DepthwiseConv2D) else factors
        before.set_weights([kernel * shaped, bias * factors])
        kernel, bias = after.get_weights()
        after.set_weights([kernel / factors[:, None], bias])
    return model


def opened(model):
    return open_source(model, scratch=Path("unused"))


def pictures(count, seed=0):
    random = np.random.default_rng(seed)
    coarse = random.normal(0, 1, (count, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return (coarse + random.normal(0, 0.2, (count, 16, 16, 3))).astype("float32")


def passes(images):
    return lambda: ((image[None],) for image in images)


def run_int8(content, images):
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    results = []
    for image in images:
        scale, zero_point = taken["quantization"]
        whole = np.clip(np.round(image[None] / scale) + zero_point, -128, 127)
        interpreter.set_tensor(taken["index"], whole.astype(np.int8))
        interpreter.invoke()
        scale, zero_point = given["quantization"]
        whole = interpreter.get_tensor(given["index"])[0].astype(float)
        results.append((whole - zero_point) * scale)
    return np.array(results)


def snr_db(source, emitted, images):
    wanted = np.concatenate([source.predict([image[None]])[0] for image in images])
    error = wanted - run_int8(emitted.content, images)
    return 10 * np.log10((wanted**2).sum() / (error**2).sum())


@pytest.mark.parametrize(("sigma", "least_db", "gain_db"), [(0, 40, 1), (1.2, 35, 15)])
def test_uneven_channels_are_no_harm(sigma, least_db, gain_db):
    source = opened(mobilenet_like(sigma))
    plain = emit(source, "int8", passes(pictures(64)), int8_steps=())
    ours = emit(source, "int8", passes(pictures(64)))
    images = pictures(64, seed=1)
    measured = snr_db(source, ours, images)
    assert measured > least_db
    assert measured > snr_db(source, plain, images) + gain_db
    assert ours.fallbacks == ()


def test_the_converter_finds_the_grid_of_the_rounded_weights_again():
    source = opened(mobilenet_like(0.5))
    prepared = prepare_static(source, passes(pictures(16)))
    emitted = emit(source, "int8", passes(pictures(16)))
    interpreter = litert.Interpreter(model_content=emitted.content)
    interpreter.allocate_tensors()
    found = {}
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if len(scales) > 1 and detail["dtype"] == np.int8:
            axis = detail["quantization_parameters"]["quantized_dimension"]
            values = np.moveaxis(interpreter.get_tensor(detail["index"]), axis, -1)
            found[values.shape[-1], values.size] = values.reshape(-1, len(scales)) * scales
    compared = 0
    for layer in prepared.graph.model().layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            columns = kernel.reshape(-1, len(bias))
            given = found[len(bias), kernel.size]
            assert np.abs(np.sort(given, axis=0) - np.sort(columns, axis=0)).max() < 1e-5
            compared += 1
    assert compared == 6


def unlike_any():
    inputs = keras.Input((16, 16, 3))

    class Scaled(keras.Layer):
        def __init__(self, factors):
            super().__init__()
            self.factors = factors

        def call(self, inputs):
            return inputs * self.factors

    return keras.Model(inputs, layers.Conv2D(2, 3)(Scaled(np.float32([1, 2, 3]))(inputs)))


def test_a_model_that_cannot_be_copied_is_converted_plainly_and_the_note_says_why():
    source = opened(unlike_any())
    emitted = emit(source, "int8", passes(pictures(8)))
    assert emitted.content == emit(source, "int8", passes(pictures(8)), int8_steps=()).content
    assert len(emitted.notes) == 1
    assert "converted as it is, without folding" in emitted.notes[0]
    assert "Scaled" in emitted.notes[0]


def test_memory_is_bounded_by_drawing_samples_and_the_note_says_so(monkeypatch):
    monkeypatch.setattr(walk, "MEMORY_LIMIT", 1 << 20)
    source = opened(mobilenet_like(0))
    prepared = prepare_static(source, passes(pictures(100)))
    assert "of 100, since the activations of more do not fit" in prepared.notes[0]


def test_each_step_does_something_of_its_own():
    source = opened(mobilenet_like(0.5))
    kernels = {}
    for step in ((), ("equalize",), ("round",), ("correct",)):
        model = prepare_static(source, passes(pictures(8)), step).graph.model()
        first = next(layer for layer in model.layers if layer.weights)
        kernels[step] = first.get_weights()
    original = kernels[()]
    assert not np.allclose(kernels["equalize",][1], original[1])
    assert np.array_equal(kernels["round",][1], original[1])
    assert not np.array_equal(kernels["round",][0], kernels["correct",][0])
    assert not np.array_equal(kernels["correct",][1], original[1])


def test_unusable_samples_are_an_error_not_a_note():
    source = opened(mobilenet_like(0))
    with pytest.raises(DataError, match="NaN"):
        emit(source, "int8", passes(np.full((2, 16, 16, 3), np.nan, "float32")))
    with pytest.raises(DataError, match="empty"):
        emit(source, "int8", passes(pictures(0)))
