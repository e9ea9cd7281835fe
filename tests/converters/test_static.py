"""The range table of a conversion: its names, its way through a bundle, and what an edit does."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.errors import DataError, UsageError
from edgekit.runtime.tflite import describe_tflite

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.converters.formats.litert import emit  # noqa: E402
from edgekit.converters.quantize.ranges import Range, read_ranges  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.static import float_twin  # noqa: E402

layers = keras.layers
DATA = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype(np.float32)


def small():
    keras.utils.set_random_seed(2)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", name="stem")(image))
    x = layers.ReLU(name="relu")(x)
    y = layers.Conv2D(6, 3, padding="same", name="branch")(x)
    x = layers.Concatenate(name="join")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(4, name="logits")(x))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A model's file, and the int8 bundle made of it."""
    folder = tmp_path_factory.mktemp("first")
    small().save(folder / "m.keras")
    out = folder / "first.edgekit"
    edgekit.convert(folder / "m.keras", out, precision="int8", data=DATA)
    return folder / "m.keras", out


def model_bytes(bundle):
    return (Path(bundle) / "model.tflite").read_bytes()


def test_ranges_have_the_names_of_layers(first):
    table = read_ranges(first[1])
    assert set(table.tensors) == {"image", "relu", "branch", "join", "pool", "logits"}
    assert table.origin == "minmax" and table.steps == ("equalize", "round", "correct")
    assert "ranges.json" in read_bundle(first[1]).manifest.files


@pytest.mark.parametrize("observer", ["percentile", "mse"])
def test_every_observers_table_can_be_written_and_read(first, observer, tmp_path):
    out = tmp_path / "b.edgekit"
    edgekit.convert(first[0], out, precision="int8", data=DATA, observer=observer, int8_steps=())
    table = read_ranges(out)
    assert table.origin == observer
    assert table.encode() == (out / "ranges.json").read_bytes()


def test_the_table_of_a_bundle_gives_the_same_file(first, tmp_path):
    out = tmp_path / "again.edgekit"
    edgekit.convert(first[0], out, precision="int8", data=DATA[:8], ranges=first[1])
    once = tmp_path / "once.edgekit"
    edgekit.convert(first[0], once, precision="int8", data=DATA[:8])
    assert read_ranges(out).tensors == read_ranges(first[1]).tensors
    assert read_ranges(once).tensors != read_ranges(first[1]).tensors
    whole = tmp_path / "whole.edgekit"
    edgekit.convert(first[0], whole, precision="int8", data=DATA, ranges=first[1])
    assert model_bytes(whole) == model_bytes(first[1])


@pytest.mark.parametrize("kind", ["keras", "tflite"])
def test_a_complete_table_needs_no_data_where_nothing_else_does(first, kind, tmp_path):
    model, steps = first[0], ()
    if kind == "tflite":
        source = open_source(first[0], scratch=tmp_path)
        model, steps = tmp_path / "float.tflite", ("equalize", "round", "correct")
        model.write_bytes(emit(source, "fp32", None).content)
    made, again = tmp_path / "made.edgekit", tmp_path / "again.edgekit"
    edgekit.convert(model, made, precision="int8", data=DATA, int8_steps=steps)
    assert read_ranges(made).steps == ()
    edgekit.convert(model, again, precision="int8", ranges=made, int8_steps=steps)
    assert model_bytes(again) == model_bytes(made)
    assert not read_bundle(again).manifest.fallbacks


def edited(bundle, path, **changes):
    table = json.loads((Path(bundle) / "ranges.json").read_text())
    table["tensors"].update(changes.pop("tensors", {}))
    path.write_text(json.dumps({**table, **changes}))
    return path


def test_an_edited_range_clips_and_says_nothing_of_the_others(first, tmp_path):
    limit = read_ranges(first[1]).tensors["relu"].max / 4
    file = edited(first[1], tmp_path / "r.json", tensors={"relu": {"min": 0.0, "max": limit}})
    out = tmp_path / "b.edgekit"
    edgekit.convert(first[0], out, precision="int8", data=DATA, ranges=file)
    assert read_ranges(out).tensors["relu"] == Range(0.0, limit)
    scales = {t.name: t.scales for t in describe_tflite(model_bytes(out), "b").tensors}
    before = {t.name: t.scales for t in describe_tflite(model_bytes(first[1]), "a").tensors}
    assert scales["relu"][0] == pytest.approx(limit / 255, rel=1e-6)
    assert scales["relu"] != before["relu"] and scales["branch"] == before["branch"]
    worse = read_bundle(out).manifest.parity.snr_db
    assert worse < read_bundle(first[1]).manifest.parity.snr_db - 10


def test_edited_precisions_are_followed_and_reported(first, tmp_path):
    precisions = {"branch": "fp32", "logits": "int16x8"}
    file = edited(first[1], tmp_path / "r.json", precisions=precisions)
    out = tmp_path / "b.edgekit"
    edgekit.convert(first[0], out, precision="int8", data=DATA, ranges=file)
    fallbacks = read_bundle(out).manifest.fallbacks
    assert {f.what.split(" ", 1)[1]: f.reason.split(",")[0] for f in fallbacks} == precisions
    types = {t.name: t.dtype for t in describe_tflite(model_bytes(out), "b").tensors}
    assert types["branch"] == "float32"
    assert read_ranges(out).precisions == precisions


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tensors": {"nowhere": {"min": 0, "max": 1}}}, "does not have .nowhere.; it has image"),
        ({"precisions": {"nowhere": "fp32"}}, "does not have .nowhere."),
    ],
)
def test_tables_that_name_other_layers_are_refused(first, changes, says, tmp_path):
    file = edited(first[1], tmp_path / "r.json", **changes)
    with pytest.raises(DataError, match=says):
        edgekit.convert(first[0], tmp_path / "b.edgekit", precision="int8", data=DATA, ranges=file)
    assert not (tmp_path / "b.edgekit").exists()


def test_tables_of_other_steps_are_refused_with_those_to_take(first, tmp_path):
    with pytest.raises(UsageError, match="--int8-steps equalize,round,correct"):
        edgekit.convert(
            first[0],
            tmp_path / "b.edgekit",
            precision="int8",
            data=DATA,
            ranges=first[1],
            int8_steps=(),
        )
    with pytest.raises(UsageError, match="give --data, or say --int8-steps none"):
        edgekit.convert(first[0], tmp_path / "b.edgekit", precision="int8", ranges=first[1])


def test_the_reference_has_the_weights_before_they_were_rounded(first, tmp_path):
    source = open_source(first[0], scratch=tmp_path)
    given = read_ranges(first[1])
    twin = float_twin(
        source,
        lambda: iter([(sample[None],) for sample in DATA]),
        steps=given.steps,
        observer="minmax",
        given=None,
        on_progress=lambda phase, done, total: None,
    )
    assert set(twin.names.values()) >= {name for name, _ in twin.layers()}
    assert len(twin.unrounded) == 6  # kernels and biases of three layers
    path = tmp_path / "reference.tflite"
    path.write_bytes(twin.reference())
    reference = open_source(path, scratch=tmp_path)
    for sample in DATA[:3]:
        wanted, given = source.predict((sample[None],)), reference.predict((sample[None],))
        np.testing.assert_allclose(given[0], wanted[0], atol=1e-4)
    names = [tensor.name for tensor in describe_tflite(twin.content, "twin").tensors]
    assert len(names) == len(set(names))
    assert msgspec.json.decode(twin.table.encode())["steps"] == list(given_steps(twin))


def given_steps(twin):
    return twin.table.steps
