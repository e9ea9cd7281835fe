"""A quantize-aware model is an ordinary one: its structure, its training, its grids."""

import json
import zipfile

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

import edgekit  # noqa: E402
from edgekit.converters.quantize.aware.layers import FakeQuantize, round_weights  # noqa: E402
from edgekit.converters.quantize.aware.read import trained_table  # noqa: E402
from edgekit.converters.quantize.graph import run  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.tflite.grids import grid_of  # noqa: E402
from edgekit.errors import DataError, ModelError, UnsafeModelError, UsageError  # noqa: E402

layers = keras.layers


def images(count=16, seed=0, shape=(8, 8, 3)):
    return np.random.default_rng(seed).normal(0, 1, (count, *shape)).astype("float32")


def small(activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(5, activation, name="answer"),
        ],
        name="small",
    )


def two_headed():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((4,), name="right")
    features = layers.Concatenate()([layers.GlobalAveragePooling2D()(left), right])
    kind = layers.Dense(3, "softmax", name="kind")(features)
    size = layers.Dense(2, name="size")(features)
    return keras.Model({"right": right, "left": left}, {"size": size, "kind": kind})


def quantizers(model):
    return {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}


def test_dictionaries_losses_by_name_and_tf_data_train():
    model = two_headed()
    data = {"left": images(), "right": images(shape=(4,))}
    wanted = {"kind": np.zeros(16, int), "size": images(shape=(2,))}
    aware = edgekit.quantize_aware(model, calibration=data)
    assert [t.name for t in aware.inputs] == [t.name for t in model.inputs]
    assert (aware.output_names, sorted(aware.output)) == (model.output_names, ["kind", "size"])
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    aware.compile("sgd", losses, metrics={"kind": ["accuracy"]})
    batches = tf.data.Dataset.from_tensor_slices((data, wanted)).batch(8)
    history = aware.fit(
        batches, validation_data=batches, epochs=3, shuffle=False, verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0]
    assert {"val_loss", "kind_accuracy"} <= set(history)
    assert sorted(aware.predict(data, verbose=0)) == ["kind", "size"]


def test_nothing_of_the_callers_model_is_touched():
    model = small()
    before = [weight.copy() for weight in model.get_weights()]
    aware = edgekit.quantize_aware(model, calibration=images())
    aware.compile("sgd", "sparse_categorical_crossentropy")
    aware.fit(images(), np.zeros(16, int), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert (aware.name, aware.output_names) == ("small", ["answer"])


def test_shared_layers_stay_shared():
    shared = layers.SeparableConv2D(3, 3, padding="same", activation="silu", name="twice")
    norms = [layers.BatchNormalization(), layers.BatchNormalization()]
    image = keras.Input((8, 8, 3))
    tensor = norms[1](shared(norms[0](shared(image))))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(tensor))
    aware = edgekit.quantize_aware(model, calibration=images())
    assert len(aware.trainable_weights) == len(model.trainable_weights)
    aware.compile("sgd", "mse")
    aware.fit(images(), images(shape=(3,)), verbose=0)
    graph, table = trained_table(aware)
    kernels = [np.asarray(s.layer.kernel) for s in graph.steps if "twice_depth" in s.layer.name]
    np.testing.assert_array_equal(*kernels)
    names = [step.layer.name for step in graph.steps]
    assert len(set(names)) == len(names)
    assert set(table.tensors) <= {*names, graph.inputs[0].name}
    answer = run(graph, [images()])[0]
    assert np.abs(answer - aware.predict(images(), verbose=0)).max() < 0.05 * np.abs(answer).max()


def test_frozen_statistics_are_those_of_the_folded_layer():
    aware = edgekit.quantize_aware(small(), calibration=images(), freeze_after=2)
    norm = aware.get_layer("norm")
    aware.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    means = []
    for step in range(4):
        aware.fit(images(seed=step), np.zeros(16, int), batch_size=16, verbose=0)
        means.append(np.asarray(norm.moving_mean))
    assert not np.array_equal(means[0], means[1])
    assert np.array_equal(means[1], means[3])
    for layer in quantizers(aware).values():
        layer.trainable = False
    trains, answers = (np.asarray(aware(images(), training=t)) for t in (True, False))
    np.testing.assert_allclose(trains, answers, atol=1e-6)


def test_ranges_follow_the_data_and_the_answer_is_never_clipped():
    keras.utils.set_random_seed(2)
    aware = edgekit.quantize_aware(small(None), calibration=images())
    found = quantizers(aware)
    assert set(found) == {"image_quantized", "relu_quantized", "answer"}
    before = {name: layer.range() for name, layer in found.items()}
    aware(3 * images(seed=5), training=False)
    assert {name: layer.range() for name, layer in found.items()} == before
    answer = np.asarray(aware(30 * images(seed=5), training=True))
    after = {name: layer.range() for name, layer in found.items()}
    moved = after["image_quantized"].max - before["image_quantized"].max
    largest = 30 * images(seed=5).max() - before["image_quantized"].max
    assert moved == pytest.approx(0.01 * largest, rel=1e-3)
    # The answer is on the grid, whose step is up to 1.1 % larger than the range needs.
    assert 1.011 * after["answer"].max >= answer.max() > 0
    aware(0.01 * images(), training=True)
    assert 0.9 * after["answer"].max < found["answer"].range().max < after["answer"].max


def test_a_softmax_that_rounds_to_zero_still_has_a_gradient():
    model = small()
    kernel, bias = model.get_layer("answer").get_weights()
    model.get_layer("answer").set_weights([kernel, bias + [12, 0, 0, 0, 0]])
    aware = edgekit.quantize_aware(model, calibration=images())
    loss = keras.losses.SparseCategoricalCrossentropy()
    with tf.GradientTape() as tape:
        value = loss(np.ones(16), aware(images(), training=True))
    (bias,) = (w for w in aware.trainable_weights if w.shape == (5,))
    assert value > 5
    assert np.abs(tape.gradient(value, bias.value)).max() > 0.5


@pytest.mark.parametrize(
    "calibration",
    [
        images(),
        list(images()),
        (images(),),
        {"image": images()},
        tf.data.Dataset.from_tensor_slices((images(), np.zeros(16))).batch(5),
        tf.data.Dataset.from_tensor_slices(images()),
        [(images()[:8], np.zeros(8)), (images()[8:], np.zeros(8))],
    ],
    ids=["array", "list", "tuple", "dict", "tf.data", "unbatched", "batches"],
)
def test_all_forms_of_calibration_give_the_same_ranges(calibration):
    aware = edgekit.quantize_aware(small(), calibration=calibration)
    found = quantizers(aware)["image_quantized"].range()
    assert (found.min, found.max) == (images().min(), images().max())


class Unsaved(layers.Layer):
    def __init__(self, table):
        super().__init__(name="unsaved")
        self.table = table

    def call(self, inputs):
        return inputs * self.table


def with_layer(layer, shape=(8, 3)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.Dense(2)(layer(inputs)))


@pytest.mark.parametrize(
    ("model", "settings", "error", "message"),
    [
        (small, {"calibration": images() * np.nan}, DataError, "NaN"),
        (small, {"calibration": images(shape=(8, 8, 1))}, DataError, r"\[None, 8, 8, 3\]"),
        (small, {"calibration": []}, DataError, "no samples"),
        (small, {"calibration": 3}, DataError, "got int"),
        (small, {"calibration": images(), "scheme": "onnx"}, UsageError, "litert, tensorrt"),
        (small, {"calibration": images(), "freeze_after": -1}, UsageError, "freeze_after"),
        (lambda: with_layer(layers.LSTM(3, name="memory")), {}, ModelError, r"memory \(LSTM\)"),
        (lambda: with_layer(Unsaved(np.float32(3))), {}, ModelError, r"unsaved \(Unsaved\)"),
        (lambda: with_layer(layers.ReLU(), (None, 3)), {}, ModelError, "must be fixed"),
        (lambda: "model.keras", {}, UsageError, "got str"),
    ],
)
def test_what_cannot_be_says_why(model, settings, error, message):
    with pytest.raises(error, match=message):
        edgekit.quantize_aware(model(), **{"calibration": images(shape=(8, 3)), **settings})


def test_an_aware_model_is_not_made_aware_again():
    aware = edgekit.quantize_aware(small(), calibration=images())
    with pytest.raises(ModelError, match="already"):
        edgekit.quantize_aware(aware, calibration=images())
    with pytest.raises(ModelError, match="not quantize-aware"):
        trained_table(small())


def test_layers_without_a_rule_stay_float_and_are_named():
    model = with_layer(layers.LayerNormalization(name="centred"))
    with pytest.warns(UserWarning, match=r"stay float inside .*centred \(LayerNormalization\)"):
        aware = edgekit.quantize_aware(model, calibration=images(shape=(8, 3)))
    assert trained_table(aware)[1].precisions == {"centred": "fp32"}


def test_the_tensorrt_scheme_is_symmetric_and_says_so(tmp_path):
    aware = edgekit.quantize_aware(small(), calibration=images(), scheme="tensorrt")
    aware.save(tmp_path / "aware.keras")
    _, table = trained_table(open_source(tmp_path / "aware.keras", scratch=tmp_path).model)
    assert table.scheme == "tensorrt"
    assert all(found.min == -found.max < 0 for found in table.tensors.values())


ends = st.floats(-1e4, 1e4, width=32)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(
    ends,
    ends,
    st.lists(ends, min_size=1, max_size=20),
    st.sampled_from(("litert", "tensorrt")),
)
def test_fake_quantization_is_what_the_emitters_grid_does(one, other, values, scheme):
    layer = FakeQuantize(scheme=scheme)
    layer.build((None,))
    layer.set_weights([np.float32(min(one, other)), np.float32(max(one, other))])
    grid = grid_of(layer.range(), "int8", scheme)
    assert grid.scale > 0 and -128 <= grid.zero_point <= 127
    assert scheme == "litert" or grid.zero_point == 0
    lowest, highest = ((end - grid.zero_point) * grid.scale for end in (-128, 127))
    inside = np.clip(values, lowest, highest).astype("float32")
    given = np.asarray(layer(inside), np.float64)
    assert np.abs(given - inside).max() <= 0.51 * grid.scale
    np.testing.assert_allclose(given / grid.scale, np.rint(given / grid.scale), atol=2e-2)
    assert np.asarray(layer(np.zeros(1, "float32"))) == 0


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(st.lists(st.floats(-100, 100, width=32), min_size=12, max_size=12))
def test_rounded_weights_are_within_half_a_step_and_pass_gradients(values):
    weights = tf.Variable(np.array(values, "float32").reshape(2, 2, 3))
    with tf.GradientTape() as tape:
        rounded = round_weights(weights, (0, 1))
        total = tf.reduce_sum(rounded * 3.0)
    largest = np.abs(weights.numpy()).max((0, 1))
    assert (np.abs(rounded - weights) <= 0.501 * largest / 127 + 1e-30).all()
    np.testing.assert_array_equal(tape.gradient(total, weights), np.full((2, 2, 3), 3.0, "f4"))


def test_a_lambda_inside_a_layer_of_ours_is_refused(tmp_path):
    aware = edgekit.quantize_aware(small(), calibration=images())
    aware.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good:
        files = {name: good.read(name) for name in good.namelist()}
    config = json.loads(files["config.json"])
    wrapped = next(e for e in config["config"]["layers"] if e["class_name"] == "QuantizedWeights")
    wrapped["config"]["layer"] = {"class_name": "__lambda__", "config": {"value": "x"}}
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for name, content in files.items():
            bad.writestr(name, content)
    with pytest.raises(UnsafeModelError, match="Lambda"):
        open_source(tmp_path / "bad.keras", scratch=tmp_path)


def gratings(count, seed):
    """Return stripes of eight directions in noise, and which direction."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 8, count)
    down, right = np.mgrid[:12, :12] / 12
    angle = y[:, None, None] * np.pi / 8 + random.normal(0, 0.08, (count, 1, 1))
    phase = random.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(4 * np.pi * (np.cos(angle) * right + np.sin(angle) * down) + phase)
    return (waves + random.normal(0, 0.9, waves.shape))[..., None].astype("float32"), y


def widened(model, sigma):
    """Scale channels apart, the float function unchanged: what ruins ranges of whole tensors."""
    random = np.random.default_rng(0)
    linear = [layer for layer in model.layers if layer.weights]
    for first, second in zip(linear, linear[1:], strict=False):
        factors = np.exp(random.normal(0, sigma, first.output.shape[-1])).astype("float32")
        kernel, bias = first.get_weights()
        is_depthwise = isinstance(first, layers.DepthwiseConv2D)
        kernel = kernel * (factors[:, None] if is_depthwise else factors)
        first.set_weights([kernel, bias * factors])
        kernel, bias = second.get_weights()
        second.set_weights([kernel / factors[:, None], bias])


def test_training_regains_what_wide_channels_lost():
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 1))
    tensor = layers.Conv2D(8, 5, activation="relu")(image)
    tensor = layers.DepthwiseConv2D(3, activation="relu", padding="same")(tensor)
    tensor = layers.Conv2D(12, 1, activation="relu")(tensor)
    tensor = layers.DepthwiseConv2D(3, activation="relu")(tensor)
    tensor = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 1, activation="relu")(tensor))
    model = keras.Model(image, layers.Dense(8)(tensor))
    (x, y), test = gratings(4000, 1), gratings(1000, 2)

    def fit(trained, epochs):
        rate = keras.optimizers.schedules.CosineDecay(3e-3, 63 * epochs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        trained.compile(keras.optimizers.Adam(rate), loss)
        trained.fit(x, y, epochs=epochs, batch_size=64, verbose=0)

    def accuracy(trained):
        return np.mean(trained.predict(test[0], verbose=0).argmax(1) == test[1])

    fit(model, 12)
    widened(model, 1.5)
    aware = edgekit.quantize_aware(model, calibration=x[:128])
    lost = accuracy(model) - accuracy(aware)
    fit(aware, 10)
    assert lost > 0.02
    assert accuracy(model) - accuracy(aware) < 0.2 * lost


def test_inputs_with_other_numbers_of_samples_are_refused():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    model = keras.Model([left, right], keras.layers.Dense(2)(keras.layers.Add()([left, right])))
    given = (np.ones((5, 4), "float32"), np.ones((8, 4), "float32"))
    with pytest.raises(DataError, match="5 for left, 8 for right"):
        edgekit.quantize_aware(model, calibration=given)
