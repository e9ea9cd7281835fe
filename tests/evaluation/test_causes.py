"""Each cause of a bad layer, caused on purpose in a small network, is named with its layer."""

import numpy as np
import pytest

pytestmark = [
    pytest.mark.convert,
    # ai-edge-quantizer keeps all tensors, and LiteRT says what that costs.
    pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors"),
]
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")

from ai_edge_quantizer import recipe  # noqa: E402

from edgekit.converters.formats import litert  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.evaluation.layers import compare_layers, pair_by_name  # noqa: E402

layers = keras.layers
LAYERS = ("one", "two", "three", "four", "logits")


def samples(n=8):
    random = np.random.default_rng(1)
    return [(random.uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32),) for _ in range(n)]


def network():
    """Return a network that tells 4 classes at each place, so that no error averages out."""
    keras.utils.set_random_seed(3)
    picture = keras.Input((8, 8, 3), name="picture")
    x = layers.Conv2D(16, 3, activation="relu", padding="same", name="one")(picture)
    x = layers.Conv2D(16, 3, activation="relu", padding="same", name="two")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", padding="same", name="three")(x)
    x = layers.Conv2D(24, 1, activation="relu", name="four")(x)
    return keras.Model(picture, layers.Conv2D(4, 1, name="logits")(x))


def rescale(model, first, second, sigma):
    """Make channels between two layers differ in range; the function stays what it was."""
    factors = np.exp(np.random.default_rng(5).normal(0, sigma, 16)).astype(np.float32)
    weights, bias = model.get_layer(first).get_weights()
    own = factors[:, None] if weights.shape[-1] == 1 else factors
    model.get_layer(first).set_weights([weights * own, bias * factors])
    weights, bias = model.get_layer(second).get_weights()
    model.get_layer(second).set_weights([weights / factors[:, None], bias])


def diagnosed(model, tmp_path, factors=None):
    """Return the comparison of `model` and its int8 twin; `factors` stretch ranges by layer."""
    content = litert.emit(open_source(model, scratch=tmp_path), "fp32", None).content
    ranges = observed(content)
    for layer, factor in (factors or {}).items():
        (name,) = [name for name in ranges if layer in name]
        ranges[name] = {end: value * np.float32(factor) for end, value in ranges[name].items()}
    work = quantizer.Quantizer(bytearray(content))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    quiet = {"enable_progress_bar": False, "enable_progress_report": False}
    int8 = bytes(work.quantize(ranges, **quiet).quantized_model)
    return compare_layers(content, int8, pair_by_name(content, int8), samples(), class_axis=-1)


def observed(content):
    """Return the smallest and largest value of each activation over the samples."""
    from edgekit.evaluation.activations import Activations

    graph = Activations(content, "the float model")
    ranges = {}
    for number, sample in enumerate(samples()):
        graph.run(sample, number)
        for index in [*graph.input_indices, *graph.producers]:
            values = graph.values(index)
            found = ranges.setdefault(graph.tensors[index].name, {"min": values, "max": values})
            found["min"] = np.array([min(found["min"].min(), values.min())], np.float32)
            found["max"] = np.array([max(found["max"].max(), values.max())], np.float32)
    return ranges


def is_layer(bad, layer):
    """Whether `bad` is Keras' `layer`; the last one's tensor is called Identity."""
    return layer in bad.name or (layer == "logits" and "Identity" in bad.name)


def test_a_healthy_network_has_no_bad_layer(tmp_path):
    comparison = diagnosed(network(), tmp_path)
    assert comparison.first_bad is None
    assert min(layer.snr_db for layer in comparison.layers) > 30
    operators = ["INPUT", "CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "CONV_2D"]
    assert [layer.operator for layer in comparison.layers] == operators


@pytest.mark.parametrize("layer", ["two", "four"])
def test_a_range_that_is_too_narrow_is_clipping(layer, tmp_path):
    bad = diagnosed(network(), tmp_path, {f"{layer}_": 0.3}).first_bad
    assert is_layer(bad, layer)
    assert bad.cause == "clipping"
    assert "of its values lie beyond its range" in bad.why


def test_a_softmax_at_the_end_hides_no_bad_layer(tmp_path):
    plain = network()
    model = keras.Model(plain.inputs, layers.Softmax(name="shares")(plain.outputs[0]))
    bad = diagnosed(model, tmp_path, {"two_": 0.2}).first_bad
    assert is_layer(bad, "two")
    assert bad.cause == "clipping"


def test_a_clipped_last_layer_is_clipping_and_ties_answers(tmp_path):
    comparison = diagnosed(network(), tmp_path, {"Identity": 0.25})
    bad = comparison.first_bad
    assert (bad.index, bad.cause) == (5, "clipping")
    assert comparison.layers[5].saturated > 0.1
    assert comparison.layers[5].tied > 0.05
    assert "of the answers are ties" in bad.why


@pytest.mark.parametrize("layer", ["one", "three"])
def test_an_outlier_in_the_calibration_leaves_few_steps(layer, tmp_path):
    comparison = diagnosed(network(), tmp_path, {f"{layer}_": 60})
    bad = comparison.first_bad
    assert is_layer(bad, layer)
    assert bad.cause == "few_steps"
    assert comparison.layers[bad.index].unused > 0.9


@pytest.mark.parametrize(("first", "second"), [("one", "two"), ("three", "four")])
def test_rescaled_channels_are_wide_where_they_are_and_not_where_it_shows(first, second, tmp_path):
    model = network()
    rescale(model, first, second, sigma=2)
    comparison = diagnosed(model, tmp_path)
    bad = comparison.first_bad
    assert is_layer(bad, first)
    assert bad.cause == "wide_channels"
    assert comparison.layers[bad.index].range_ratio > 16
    # Signal to noise alone would blame the next layer: large channels hide the lost ones.
    assert second in bad.shows_at
    assert comparison.layers[bad.index].snr_db > comparison.layers[bad.index + 1].snr_db + 6


def test_weights_that_an_outlier_coarsens_are_the_cause(tmp_path):
    """The outlying weights meet a channel that is always zero: the others' rounding counts."""
    model = network()
    weights, bias = model.get_layer("one").get_weights()
    weights[..., 4], bias[4] = 0, -1
    model.get_layer("one").set_weights([weights, bias])
    weights, bias = model.get_layer("two").get_weights()
    weights[:, :, 4, :] = 20
    model.get_layer("two").set_weights([weights, bias])
    bad = diagnosed(model, tmp_path).first_bad
    assert is_layer(bad, "two")
    assert bad.cause == "weights"


def test_answers_closer_than_a_step_are_tied_though_signal_to_noise_is_good(tmp_path):
    model = network()
    weights, bias = model.get_layer("logits").get_weights()
    bias[3] = -40  # a class that never wins takes the grid
    model.get_layer("logits").set_weights([weights, bias])
    comparison = diagnosed(model, tmp_path)
    bad = comparison.first_bad
    assert (bad.index, bad.cause) == (5, "tied_logits")
    assert comparison.layers[5].snr_db > 40
    assert comparison.layers[5].tied > 0.05


def test_a_difference_of_values_nearly_alike_amplifies_their_error(tmp_path):
    model = network()
    keras.utils.set_random_seed(3)
    twin = layers.Conv2D(16, 3, activation="relu", padding="same", name="twin")
    ones = model.get_layer("one")
    difference = layers.Subtract(name="difference")([ones.output, twin(model.input)])
    weights, bias = ones.get_weights()
    noise = np.random.default_rng(0).normal(1, 0.05, weights.shape)
    twin.set_weights([weights * noise, bias])
    model = keras.Model(model.input, layers.Conv2D(4, 1, name="logits")(difference))
    bad = diagnosed(model, tmp_path).first_bad
    assert is_layer(bad, "difference")
    assert bad.cause == "amplified"


def test_an_error_that_an_average_recovers_is_not_blamed(tmp_path):
    """Rounding errors of 64 places cancel, so the coarse layer before hardly matters."""
    picture = keras.Input((8, 8, 3), name="picture")
    keras.utils.set_random_seed(3)
    x = layers.Conv2D(8, 3, activation="relu", name="one")(picture)
    model = keras.Model(picture, layers.GlobalAveragePooling2D(name="mean")(x))
    comparison = diagnosed(model, tmp_path, {"one_": 12})
    assert comparison.layers[1].snr_db < 30
    assert comparison.layers[2].snr_db > 36
    assert comparison.first_bad is None
