"""Observers: what they see is what the layers compute, and what they may clip."""

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert.interpreter")

from edgekit.converters import observe as module  # noqa: E402
from edgekit.converters.observe import clipped_ranges, observe  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.static import float_twin  # noqa: E402
from edgekit.converters.tflite.observe import TfliteProbe  # noqa: E402
from edgekit.errors import DataError  # noqa: E402

layers = keras.layers


def quiet(phase, done, total):
    """Report no progress."""


def classifier(last="softmax"):
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="one")(layers.Conv2D(6, 3)(image))
    x = layers.Conv2D(6, 3, name="two")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Add(name="sum")([x, layers.Conv2D(6, 1, name="three")(x)])
    logits = layers.Dense(4, name="logits")(layers.Flatten()(x))
    return keras.Model(image, layers.Activation(last, name="answer")(logits))


def samples(count=150, heavy=False):
    rng = np.random.default_rng(1)
    draw = rng.standard_t(3, (count, 1, 8, 8, 3)) if heavy else rng.normal(size=(count, 1, 8, 8, 3))
    return [(array.astype(np.float32),) for array in draw]


def twin_of(model, data, folder, observer="minmax"):
    source = open_source(model, scratch=folder)
    return float_twin(
        source, lambda: iter(data), steps=(), observer=observer, given=None, on_progress=quiet
    )


def test_minmax_is_what_keras_computes(tmp_path):
    model, data = classifier(), samples(40)
    twin = twin_of(model, data, tmp_path)
    names = ("one", "two", "three", "sum", "logits", "answer")
    inner = keras.Model(model.inputs, [model.get_layer(name).output for name in names])
    values = inner.predict(np.concatenate([s for (s,) in data]), verbose=0)
    for name, array in zip(names, values, strict=True):
        if name == "answer":  # the softmax has a grid of its own, and no range
            assert name not in twin.table.tensors
            continue
        found = twin.table.tensors[name]
        wanted = (array.min(), array.max())
        np.testing.assert_allclose((found.min, found.max), wanted, rtol=1e-4, atol=1e-5)
    image = twin.table.tensors["image"]
    assert (image.min, image.max) == (min(s.min() for (s,) in data), max(s.max() for (s,) in data))
    assert "pool" not in twin.table.tensors  # it has the range of what it pools


def test_extremes_are_those_of_each_sample(tmp_path):
    data = samples(5)
    extremes = twin_of(classifier(), data, tmp_path).extremes
    place = extremes.tensors.index(0)
    assert extremes.low[:, place].tolist() == [sample.min() for (sample,) in data]
    assert extremes.high[:, place].tolist() == [sample.max() for (sample,) in data]


def test_groups_that_fit_in_memory_see_the_same(tmp_path, monkeypatch):
    data = samples(6)
    whole = twin_of(classifier(), data, tmp_path)
    passes = []

    def again():
        passes.append(1)
        return iter(data)

    monkeypatch.setattr(module, "_MEMORY_LIMIT", 2000)
    groups = observe(TfliteProbe(whole.content), again)
    assert len(passes) > 1
    assert groups.tensors == whole.extremes.tensors
    np.testing.assert_allclose(groups.low, whole.extremes.low, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(groups.high, whole.extremes.high, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("observer", ["percentile", "mse"])
def test_narrower_ranges_clip_no_logits_and_no_outputs(observer, last, tmp_path):
    model, data = classifier(last), samples(heavy=True)
    wide = twin_of(model, data, tmp_path).table.tensors
    narrow = twin_of(model, data, tmp_path, observer).table.tensors
    assert narrow.keys() == wide.keys()
    logits = "answer" if last == "linear" else "logits"
    assert narrow[logits] == wide[logits]
    assert narrow["image"].width < 0.99 * wide["image"].width
    for name, found in narrow.items():
        assert wide[name].min - 1e-6 <= found.min <= 0 <= found.max <= wide[name].max + 1e-6


def test_percentile_keeps_that_share_of_the_values(tmp_path):
    data = samples(heavy=True)
    twin = twin_of(classifier(), data, tmp_path)
    found = clipped_ranges(
        TfliteProbe(twin.content), twin.extremes.ranges(), lambda: iter(data), "percentile"
    )[0]
    values = np.concatenate([s.ravel() for (s,) in data])
    inside = np.mean((values >= found.min) & (values <= found.max))
    assert 0.9999 - 1e-9 <= inside < 1


def test_mse_is_at_most_the_error_of_the_whole_range(tmp_path):
    data = samples(heavy=True)
    twin = twin_of(classifier(), data, tmp_path)
    wide = twin.extremes.ranges()
    narrow = clipped_ranges(TfliteProbe(twin.content), wide, lambda: iter(data), "mse")
    values = np.concatenate([s.ravel() for (s,) in data]).astype(float)

    def error(found):
        step = found.width / 255
        return ((np.clip(np.rint(values / step) * step, found.min, found.max) - values) ** 2).sum()

    assert error(narrow[0]) < error(wide[0])


def test_a_layer_that_is_not_finite_is_named_with_its_sample(tmp_path):
    image = keras.Input((4,), name="x")
    x = layers.Dense(4, kernel_initializer="ones", name="large")(image)
    model = keras.Model(image, layers.Dense(2)(layers.Activation("exponential", name="grow")(x)))
    data = [(np.full((1, 4), value, np.float32),) for value in (0.1, 200.0)]
    with pytest.raises(DataError, match="sample 2 makes grow infinite or NaN"):
        twin_of(model, data, tmp_path)
