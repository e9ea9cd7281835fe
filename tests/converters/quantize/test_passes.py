"""The float passes: the copy, folding and equalization leave what a model computes as it is."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

from edgekit.converters.quantize.equalize import equalize, groups_of  # noqa: E402
from edgekit.converters.quantize.fold import fold  # noqa: E402
from edgekit.converters.quantize.graph import Unsupported, flatten, run  # noqa: E402
from edgekit.converters.quantize.linear import kind_of  # noqa: E402
from edgekit.converters.quantize.walk import channel_ranges, draw  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402

layers = keras.layers


def randomized(model, seed=0):
    """Give all weights values as training might, BatchNormalization's statistics too."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            randomized(layer, seed)
            continue
        weights = []
        for variable in layer.weights:
            value = np.asarray(variable)
            if value.ndim > 1:
                value = value * np.exp(random.normal(0, 0.7, value.shape[-1]))
            elif "variance" in variable.name or "gamma" in variable.name:
                value = random.uniform(0.3, 3, value.shape)
            else:
                value = random.normal(0, 0.5, value.shape)
            weights.append(value)
        layer.set_weights(weights)
    return model


def opened(model):
    return open_source(model, scratch=Path("unused"))


def inputs_of(source, seed=1):
    random = np.random.default_rng(seed)
    return tuple(random.normal(0, 1, spec.shape).astype("float32") for spec in source.inputs)


def passed(source, equalizes=True):
    """Return the folded and equalized graph, and the notes."""
    graph, notes = fold(flatten(source.model, source.inputs)[0])
    if equalizes:
        samples = draw(graph, (inputs_of(source, seed) for seed in range(4)))
        ranges = channel_ranges(graph, samples, lambda *_: None)
        notes += equalize(graph, ranges)
    return graph, notes


def expect_same_function(source, graph):
    inputs = inputs_of(source)
    for wanted, given in zip(source.predict(inputs), run(graph, inputs), strict=True):
        np.testing.assert_allclose(given, wanted, atol=1e-4 * max(np.abs(wanted).max(), 1e-3))


def names_of(graph):
    return {type(step.layer).__name__ for step in graph.steps}


BLOCKS = {
    "conv": lambda c: layers.Conv2D(c, 3, padding="same"),
    "valid conv": lambda c: layers.Conv2D(c, 2, use_bias=False),
    "grouped": lambda c: layers.Conv2D(c, 3, padding="same", groups=2),
    "active": lambda c: layers.Conv2D(c, 1, activation="relu"),
    "depthwise": lambda c: layers.DepthwiseConv2D(3, padding="same", use_bias=False),
    "multiplied": lambda c: layers.DepthwiseConv2D(2, padding="same", depth_multiplier=2),
    "separable": lambda c: layers.SeparableConv2D(c, 3, padding="same", activation="relu"),
    "transposed": lambda c: layers.Conv2DTranspose(c, 3, strides=2, padding="same"),
    "dense": lambda c: layers.Dense(c),
    "norm": lambda c: layers.BatchNormalization(),
    "norm without gamma": lambda c: layers.BatchNormalization(scale=False, center=False),
    "relu": lambda c: layers.ReLU(),
    "relu6": lambda c: layers.ReLU(6.0),
    "leaky": lambda c: layers.LeakyReLU(0.1),
    "prelu": lambda c: layers.PReLU(shared_axes=(1, 2)),
    "tanh": lambda c: layers.Activation("tanh"),
    "silu": lambda c: layers.Conv2D(c, 1, activation="silu"),
    "hard sigmoid": lambda c: layers.Activation("hard_sigmoid"),
    "rescaling": lambda c: layers.Rescaling(2.0, -0.5),
    "pool": lambda c: layers.AveragePooling2D(2, padding="same"),
    "pad": lambda c: layers.ZeroPadding2D(1),
    "dropout": lambda c: layers.Dropout(0.5),
    "residual": None,
}


def chained(blocks, flattens):
    """Return a model of `blocks`, (name, channels), as far as its pictures are large enough."""
    image = keras.Input((6, 6, 4))
    tensor = layers.Conv2D(6, 3, padding="same")(image)
    for name, channels in blocks:
        if name == "residual":
            inner = layers.Conv2D(tensor.shape[-1], 3, padding="same")(tensor)
            tensor = layers.Add()([tensor, layers.ReLU()(inner)])
        elif min(tensor.shape[1:3]) > 1:
            tensor = BLOCKS[name](channels)(tensor)
    end = layers.Flatten() if flattens else layers.GlobalAveragePooling2D()
    return randomized(keras.Model(image, layers.Dense(3)(end(tensor))))


some_blocks = st.tuples(st.sampled_from(sorted(BLOCKS)), st.sampled_from((4, 6)))


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(st.lists(some_blocks, min_size=2, max_size=7), st.booleans())
def test_folding_and_equalization_keep_the_function_of_random_graphs(blocks, flattens):
    source = opened(chained(blocks, flattens))
    expect_same_function(source, passed(source)[0])


def test_nothing_of_the_callers_model_is_touched():
    image = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 3), layers.ReLU()])
    conv = layers.Conv2D(4, 3, padding="same")
    norm = layers.BatchNormalization()
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(inner(norm(conv(image))))))
    model.compile("adam", "mse")
    randomized(model)
    before = [w.copy() for w in model.get_weights()]
    optimizer, outputs = model.optimizer, model.outputs
    calls = [len(layer._inbound_nodes) for layer in [*model.layers, *inner.layers]]
    source = opened(model)
    passed(source)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert model.optimizer is optimizer and model.compiled and model.outputs is outputs
    assert calls == [len(layer._inbound_nodes) for layer in [*model.layers, *inner.layers]]
    assert conv.output is norm.input


def test_sequential_models_are_copied():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.GlobalMaxPooling2D(),
        ]
    )
    source = opened(randomized(model))
    graph, notes = passed(source)
    expect_same_function(source, graph)
    assert "BatchNormalization" not in names_of(graph)
    assert notes == ()


def nested():
    inner_in = keras.Input((8, 8, 4), name="x")
    inner = keras.Model(
        {"x": inner_in},
        {"b": layers.ReLU()(layers.Conv2D(4, 3)(inner_in)), "a": layers.MaxPooling2D()(inner_in)},
    )
    image = keras.Input((8, 8, 3))
    first = inner({"x": layers.Conv2D(4, 1)(image)})
    second = inner({"x": layers.Conv2D(4, 1)(image)})
    parts = [layers.Flatten()(first["a"]), layers.Flatten()(second["b"])]
    return keras.Model(image, layers.Dense(3)(layers.Concatenate()(parts)))


def test_nested_models_are_inlined_each_time_they_are_called():
    source = opened(randomized(nested()))
    graph, _ = passed(source)
    expect_same_function(source, graph)
    assert "Functional" not in names_of(graph)
    assert sum(kind_of(step.layer) == "Conv2D" for step in graph.steps) == 4


def test_shared_layers_become_one_a_call_and_are_named():
    image = keras.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="twice")
    model = keras.Model(image, shared(layers.ReLU()(shared(image))))
    source = opened(randomized(model))
    graph, notes = flatten(source.model, source.inputs)
    expect_same_function(source, graph)
    assert [step.layer.name for step in graph.steps if kind_of(step.layer)] == ["twice", "twice_2"]
    assert notes == ("twice is called 2 times; each call gets weights of its own",)


def test_dictionaries_in_and_out_keep_the_order_of_the_source():
    left, right = keras.Input((6, 6, 2), name="left"), keras.Input((3,), name="right")
    tensor = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(left)), right])
    outputs = {"z": layers.Dense(2)(tensor), "a": layers.Dense(5)(tensor)}
    source = opened(randomized(keras.Model({"right": right, "left": left}, outputs)))
    expect_same_function(source, passed(source)[0])


@pytest.mark.parametrize("shifts", [False, True])
def test_a_norm_before_a_padded_conv_is_folded_only_where_zeros_stay_zeros(shifts):
    image = keras.Input((6, 6, 3))
    norm = layers.BatchNormalization(center=shifts)
    model = randomized(keras.Model(image, layers.Conv2D(2, 3, padding="same")(norm(image))))
    scale, mean = norm.get_weights()[0], np.full(3, float(shifts))
    norm.set_weights([scale, *([mean] if shifts else []), 0 * mean, 1 + mean])
    source = opened(model)
    graph, _ = passed(source)
    expect_same_function(source, graph)
    assert names_of(graph) == ({"Conv2D", "DepthwiseConv2D"} if shifts else {"Conv2D"})


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 6, 3), (2, 6, 6, 3)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.BatchNormalization(name="alone"),
        lambda: layers.Rescaling(0.3, -0.7, name="alone"),
        lambda: layers.Normalization(mean=0.4, variance=2.0, name="alone"),
        lambda: layers.Normalization(mean=0.4, variance=2.0, invert=True, name="alone"),
    ],
    ids=["BatchNormalization", "Rescaling", "Normalization", "inverted"],
)
def test_what_scales_alone_becomes_one_convolution_of_one_tap(make, shape):
    inputs = keras.Input(shape)
    tensor = layers.Add()([inputs, make()(layers.ReLU()(inputs))])
    source = opened(randomized(keras.Model(inputs, tensor)))
    graph, notes = passed(source, equalizes=False)
    expect_same_function(source, graph)
    alone = [step for step in graph.steps if step.layer.name == "alone"]
    assert [type(step.layer).__name__[:13] for step in alone] == ["DepthwiseConv"]
    assert notes == ()


def test_several_scales_behind_a_layer_all_go_into_it():
    image = keras.Input((6, 6, 3))
    tensor = layers.Rescaling([1.0, 2.0, 3.0], 1.0)(image)
    tensor = layers.BatchNormalization()(layers.Conv2D(4, 3)(tensor))
    tensor = layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])(tensor)
    source = opened(randomized(keras.Model(image, layers.Rescaling(0.5, 3.0)(tensor))))
    graph, notes = passed(source)
    expect_same_function(source, graph)
    assert (names_of(graph), notes) == ({"Conv2D"}, ())


def test_a_norm_of_another_axis_stays_and_is_named():
    image = keras.Input((6, 5, 3))
    source = opened(
        randomized(keras.Model(image, layers.BatchNormalization(1, name="rows")(image)))
    )
    graph, notes = passed(source)
    expect_same_function(source, graph)
    assert len(notes) == 1 and notes[0].startswith("rows (BatchNormalization)")


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (lambda t: layers.Activation("silu", name="last")(t), ["Activation", "Multiply"]),
        (
            lambda t: layers.Activation("hard_sigmoid", name="last")(t),
            ["DepthwiseConv2D", "ReLU", "DepthwiseConv2D"],
        ),
        (lambda t: layers.Average(name="last")([t, t, t]), ["Add", "Add", "DepthwiseConv2D"]),
        (lambda t: layers.Multiply(name="last")([t, t, t]), ["Multiply", "Multiply"]),
        (lambda t: layers.AveragePooling2D(6, name="last")(t), ["GlobalAveragePooling2D"]),
        (lambda t: keras.ops.silu(t), ["Activation", "Multiply"]),
        (
            lambda t: 1.5 - keras.ops.relu6(t + 3.0) * 0.5 / 4.0,
            ["DepthwiseConv2D", "Activation", "DepthwiseConv2D"],
        ),
    ],
    ids=["silu", "hard_sigmoid", "average", "product", "mean", "operation", "arithmetic"],
)
def test_layers_of_several_operators_become_one_an_operator(make, kinds):
    image = keras.Input((6, 6, 3))
    source = opened(keras.Model(image, make(layers.MaxPooling2D(1)(image))))
    graph, _ = passed(source)
    expect_same_function(source, graph)
    assert [type(step.layer).__name__ for step in graph.steps[1:]] == kinds
    assert len({step.layer.name for step in graph.steps}) == len(graph.steps)


def test_equalization_makes_channels_alike_and_names_what_stops_it():
    image = keras.Input((6, 6, 3))
    first = layers.ReLU()(layers.Conv2D(8, 3, name="first")(image))
    second = layers.Activation("tanh")(layers.DepthwiseConv2D(3, name="second")(first))
    source = opened(randomized(keras.Model(image, layers.Conv2D(4, 1)(second))))
    before, _ = passed(source, equalizes=False)
    after, notes = passed(source)
    spreads = []
    for graph in (before, after):
        samples = draw(graph, (inputs_of(source, seed) for seed in range(4)))
        ranges = channel_ranges(graph, samples, lambda *_: None)
        free = [group for group in groups_of(graph) if group.readers and not group.pinned]
        assert len(free) == 1
        (seen,) = (ranges[key] for key in free[0].tensors if key in ranges)
        spreads.append(seen.max() / seen[seen > 0].min())
    assert spreads[1] < 1.01 < 2 < spreads[0]
    assert notes == ("second: channels not equalized, since their factors do not pass tanh",)


@pytest.mark.parametrize("bounded", [lambda: layers.ReLU(6.0), lambda: layers.Activation("relu6")])
def test_channels_grow_towards_the_limit_of_relu6_and_saturated_ones_stay(bounded):
    image = keras.Input((6, 6, 3))
    first = layers.Conv2D(8, 1, name="first")
    tensor = layers.DepthwiseConv2D(3, name="second")(bounded()(first(image)))
    model = randomized(keras.Model(image, layers.Conv2D(4, 1)(tensor)))
    kernel, _ = first.get_weights()
    first.set_weights([kernel * np.geomspace(1e-3, 30, 8), np.linspace(0.01, 0.1, 8)])
    source = opened(model)
    peaks = []
    for equalizes in (False, True):
        graph, _ = passed(source, equalizes)
        expect_same_function(source, graph)
        samples = draw(graph, (inputs_of(source, seed) for seed in range(4)))
        ranges = channel_ranges(graph, samples, lambda *_: None)
        peaks.append(ranges[id(graph.steps[1].outputs[0])])
    before, after = peaks
    saturated = before > 5.99
    assert saturated.any() and not saturated.all()
    np.testing.assert_allclose(after[saturated], 6)
    np.testing.assert_allclose(after[before < 2.9], 3, rtol=1e-3)


class Doubling(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return 2 * self.dense(inputs)


class Unsaved(layers.Layer):
    def __init__(self, table):
        super().__init__()
        self.table = table

    def call(self, inputs):
        return inputs * self.table


def subclassed():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Doubling()(inputs))


def unsaved():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Unsaved(np.float32(3))(inputs))


def masked():
    words = keras.Input((4,))
    return keras.Model(words, layers.Dense(2)(layers.Embedding(9, 3, mask_zero=True)(words)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [(subclassed, "written as Python code"), (unsaved, "cannot be copied"), (masked, "masks")],
)
def test_what_cannot_be_copied_says_why(make, reason):
    source = opened(make())
    with pytest.raises(Unsupported, match=reason):
        flatten(source.model, source.inputs)


def test_operators_between_tensors_are_copied():
    image = keras.Input((6, 6, 3))
    model = keras.Model(image, layers.Dense(2)(keras.ops.tanh(image) * 2 + image))
    source = opened(randomized(model))
    expect_same_function(source, passed(source)[0])
