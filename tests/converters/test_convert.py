"""From a trained model to a bundle, in Python; the small models are made here."""

import json
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.converters.assemble import guess_postprocess, guess_task
from edgekit.converters.samples import subset, synthetic
from edgekit.data import load_data
from edgekit.errors import CheckFailed, DataError, OutputError, UsageError
from edgekit.specs import Preprocess, TensorSpec, class_count

ASSETS = Path(__file__).resolve().parent.parent / "assets"
SIDE = 12


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def colour_model(keras):
    """Tell red from green from blue, exactly, from pixels 0..1."""
    picture = keras.Input((SIDE, SIDE, 3), name="picture")
    mean = keras.layers.GlobalAveragePooling2D()(picture)
    model = keras.Model(picture, keras.layers.Dense(3, name="logits")(mean))
    model.get_layer("logits").set_weights([np.eye(3) * 6, np.zeros(3)])
    return model


@pytest.fixture(scope="module")
def colours():
    """Return noisy pictures of one colour, uint8 RGB [n, h, w, 3], and their classes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    base = 200 * np.eye(3)[labels][:, None, None]
    noise = random.integers(0, 55, (90, SIDE, SIDE, 3))
    return (base + noise).astype(np.uint8), labels


@pytest.mark.convert
@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic", "int8"])
def test_every_precision_gives_a_bundle_that_answers_as_its_source(
    colour_model, colours, tmp_path, precision
):
    bundle = edgekit.convert(
        colour_model,
        tmp_path / "m.edgekit",
        precision=precision,
        data=colours,
        eval_data=colours,
        preprocess="unit",
    )
    manifest = bundle.manifest
    assert manifest.task == "classification"
    assert manifest.postprocess.activation == "softmax"  # the model ends in logits
    assert manifest.precision == precision
    assert manifest.inputs[0].dtype == ("int8" if precision == "int8" else "float32")
    assert manifest.parity.agreement == 1.0
    assert manifest.parity.snr_db > (30 if precision in ("int8", "dynamic") else 50)
    assert manifest.accuracy.source == manifest.accuracy.converted == 1.0
    assert not manifest.golden.synthetic
    assert manifest.provenance.calibration_sha256 is not None
    red_bgr = np.zeros((40, 30, 3), np.uint8)
    red_bgr[..., 2] = 255
    with edgekit.open(bundle.path) as model:
        assert model(red_bgr).value[0].index == 0
    page = (bundle.path / "report.html").read_text()
    assert "Conversion of" in page
    assert json.loads((bundle.path / "report.json").read_text())["precision"] == precision


@pytest.mark.convert
def test_without_data_golden_samples_are_seeded_and_said_to_be_synthetic(colour_model, tmp_path):
    said = []
    bundle = edgekit.convert(
        colour_model, tmp_path / "m.edgekit", on_progress=lambda *news: said.append(news[0])
    )
    assert bundle.manifest.golden.synthetic
    assert bundle.manifest.accuracy is None
    assert "reading the model" in said
    report = json.loads((bundle.path / "report.json").read_text())
    assert any("synthetic" in warning for warning in report["warnings"])
    assert any("no preprocess was given" in warning for warning in report["warnings"])


@pytest.mark.convert
def test_golden_frames_can_be_left_out(colour_model, colours, tmp_path):
    bundle = edgekit.convert(
        colour_model, tmp_path / "m.edgekit", data=colours, preprocess="unit", golden_frames=False
    )
    assert all(sample.frame is None for sample in bundle.golden())
    assert ".jpg" not in (bundle.path / "report.html").read_text()
    edgekit.open(bundle.path).close()


@pytest.mark.convert
def test_a_segmentation_opens_without_the_frames_that_gave_the_size_of_its_maps(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)
    bundle = edgekit.convert(
        ASSETS / "segmenter_fp32.tflite",
        tmp_path / "m.edgekit",
        precision="fp32",
        data=frames,
        preprocess="raw",
        golden_frames=False,
    )
    with edgekit.open(bundle.path) as model:
        assert model(frames[0]).value.class_map.shape == (48, 64)


@pytest.mark.convert
def test_a_missed_budget_writes_nothing_unless_it_is_kept(keras, colours, tmp_path):
    """An int8 model calibrated on dark pictures clips bright ones, and must be told off."""
    pictures, labels = colours
    picture = keras.Input((SIDE, SIDE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(picture)
    model = keras.Model(picture, keras.layers.Dense(3, name="logits")(mean))
    model.get_layer("logits").set_weights([np.eye(3), np.zeros(3)])
    dark = (pictures // 100).astype(np.uint8)
    bright = np.clip(pictures.astype(int) // 4 + 150, 0, 255).astype(np.uint8)
    choices = {
        "precision": "int8",
        "data": dark,
        "eval_data": (bright, labels),
        "preprocess": "raw",
        "max_drop": 0.01,
    }
    out = tmp_path / "m.edgekit"
    with pytest.raises(CheckFailed, match="accuracy falls from 100.00 %"):
        edgekit.convert(model, out, **choices)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckFailed):
        edgekit.convert(model, out, keep=True, **choices)
    assert edgekit.read_bundle(out).manifest.accuracy.drop > 0.01


@pytest.mark.convert
def test_float_arrays_are_model_inputs_and_that_is_said(colour_model, colours, tmp_path):
    floats = colours[0].astype(np.float32) / 255
    bundle = edgekit.convert(
        colour_model, tmp_path / "m.edgekit", precision="int8", data=floats, preprocess="unit"
    )
    report = json.loads((bundle.path / "report.json").read_text())
    assert any("taken as they are" in warning for warning in report["warnings"])
    assert not bundle.manifest.golden.frames
    # The input's range is that of the floats, not of preprocessed frames divided once more.
    assert bundle.manifest.inputs[0].scale == pytest.approx(floats.max() / 255, rel=0.02)


@pytest.mark.convert
def test_iterables_calibrate_too(colour_model, colours, tmp_path):
    frames = (frame for frame in colours[0])
    bundle = edgekit.convert(
        colour_model, tmp_path / "m.edgekit", precision="int8", data=frames, preprocess="unit"
    )
    assert bundle.manifest.parity.snr_db > 30


@pytest.mark.convert
def test_several_inputs_and_outputs(keras, tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    both = keras.layers.Concatenate()([left, right])
    outputs = [keras.layers.Dense(3)(both), keras.layers.Dense(2)(both)]
    model = keras.Model([left, right], outputs)
    random = np.random.default_rng(0)
    data = [
        (random.normal(size=4).astype(np.float32), random.normal(size=2).astype(np.float32))
        for _ in range(30)
    ]
    bundle = edgekit.convert(model, tmp_path / "m.edgekit", precision="int8", data=data)
    assert [len(bundle.manifest.inputs), len(bundle.manifest.outputs)] == [2, 2]
    with edgekit.open(bundle.path) as opened:
        first, second = opened(data[0]).raw
        expected = model([part[None] for part in data[0]])
        assert np.abs(first - np.asarray(expected[0])).max() < 0.1
        assert np.abs(second - np.asarray(expected[1])).max() < 0.1
        with pytest.raises(DataError, match="the model takes 2 inputs; got 1"):
            opened(data[0][0])


@pytest.mark.convert
def test_segmentation_and_labels_of_the_wrong_count(keras, tmp_path):
    picture = keras.Input((16, 16, 3))
    model = keras.Model(picture, keras.layers.Conv2D(3, 1)(picture))
    frames = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), np.uint8)
    names = tmp_path / "labels.txt"
    names.write_text("a\nb\n")
    with pytest.raises(UsageError, match="`labels` has 2 names; the model's output has 3"):
        edgekit.convert(model, tmp_path / "m.edgekit", data=frames, labels=str(names))
    names.write_text("a\nb\nc\n")
    bundle = edgekit.convert(
        model, tmp_path / "m.edgekit", precision="int8", data=frames, labels=str(names)
    )
    assert bundle.labels == ("a", "b", "c")
    with edgekit.open(bundle.path) as opened:
        assert opened(frames[0]).value.class_map.shape == (16, 16)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"precision": "int4"},
            "`precision` must be one of fp32, fp16, dynamic, int8, int16x8, auto; got 'int4'",
        ),
        ({"precision": "int8"}, "`precision` int8 needs `data`"),
        ({"precision": "auto"}, "`precision` auto needs `max_drop`"),
        ({"precision": "auto", "max_drop": 0, "data": "x"}, "auto needs `eval_data`"),
        ({"observer": "guess"}, "`observer` must be one of minmax, percentile, mse"),
        ({"max_drop": 0.1}, "`max_drop` needs `eval_data`"),
        ({"target": "toaster"}, "`target` must be one of .*raspberry-pi-5.*; got 'toaster'"),
        ({"task": "poetry"}, "`task` must be one of"),
        ({"preprocess": "fancy"}, "`preprocess` must be raw, unit"),
        ({"labels": 7}, "a setting cannot be used: .*labels"),
        ({"max_drop": "much"}, "`max_drop` must look like 0.5%"),
        ({"input_shape": (2, 8, 8, 3)}, "`input_shape` must be 1xHxWxC"),
        ({"int8_steps": ("polish",)}, "`int8_steps` must be one of equalize, round, correct"),
        ({"calibration_samples": 0}, "`calibration_samples` must be at least 1"),
        ({"max_drop": 2.0, "eval_data": "x"}, "`max_drop` must be 0%..100%"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(tmp_path, choices, message):
    with pytest.raises(UsageError, match=message):
        edgekit.convert("nowhere.keras", tmp_path / "m.edgekit", **choices)


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="its folder does not exist"):
        edgekit.convert("nowhere.keras", tmp_path / "no" / "m.edgekit")
    (tmp_path / "m.edgekit").mkdir()
    (tmp_path / "m.edgekit" / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no bundle; it is left alone"):
        edgekit.convert("nowhere.keras", tmp_path / "m.edgekit")
    assert (tmp_path / "m.edgekit" / "precious.txt").read_text() == "mine"


def outputs(*rows):
    return [np.array([row], np.float32) for row in rows]


@pytest.mark.parametrize(
    ("shape", "values", "labels", "is_image", "expected"),
    [
        ((1, 3), outputs([0.2, 0.3, 0.5], [1, 0, 0]), None, True, ("classification", "none")),
        ((1, 3), outputs([2, -1, 5]), None, True, ("classification", "softmax")),
        ((1, 3), outputs([2, -1, 5]), None, False, ("regression", "none")),
        ((1, 3), outputs([2, -1, 5]), np.array([1]), False, ("classification", "softmax")),
        ((1, 3), outputs([2, -1, 5]), np.ones(1, np.float32), True, ("regression", "none")),
        ((1, 1), outputs([0.3], [0.9]), np.array([0, 1]), True, ("classification", "none")),
        ((1, 1), outputs([-3], [9]), np.array([0, 1]), True, ("classification", "sigmoid")),
        ((1, 1), outputs([0.3]), None, True, ("regression", "none")),
        ((1, 7, 2), [np.zeros((1, 7, 2))], None, False, ("sequence", "none")),
        ((1, 4, 4, 3), [np.zeros((1, 4, 4, 3))], None, True, ("segmentation", "softmax")),
        ((1, 4, 5, 2), [np.full((1, 4, 5, 2), 0.5)], None, True, ("segmentation", "none")),
        ((1, 2, 4, 5), [np.full((1, 2, 4, 5), 0.5)], None, True, ("segmentation", "softmax")),
        ((1, 4, 4, 1), [np.full((1, 4, 4, 1), 9)], None, True, ("segmentation", "sigmoid")),
    ],
)
def test_the_task_is_told_from_shape_values_and_labels(shape, values, labels, is_image, expected):
    spec = TensorSpec("y", shape, "float32")
    task = guess_task(spec, values, labels, is_image)
    postprocess = guess_postprocess(task, class_count(task, spec, "nhwc"), spec, values)
    assert (task, postprocess.activation) == expected


@pytest.mark.parametrize(
    ("task", "shape", "expected"),
    [
        ("classification", (1, 3), "softmax"),
        ("segmentation", (1, 4, 4), "sigmoid"),
        ("regression", (1, 3), "none"),
    ],
)
def test_logits_are_told_for_a_task_that_was_given(task, shape, expected):
    spec = TensorSpec("y", shape, "float32")
    logits = [np.linspace(-3, 9, int(np.prod(shape)), dtype=np.float32).reshape(shape)]
    assert guess_postprocess(task, class_count(task, spec, "as_is"), spec, logits).activation == (
        expected
    )


def test_a_subset_is_spread_over_the_whole_set():
    data = load_data((np.arange(100, dtype=np.float32)[:, None], np.arange(100)))
    few = subset(data, 5)
    assert [float(sample[0]) for sample in few] == [0, 25, 50, 74, 99]
    assert few.labels.tolist() == [0, 25, 50, 74, 99]
    assert subset(data, 1000) is data


def test_synthetic_samples_are_the_same_each_time():
    spec = TensorSpec("x", (1, 8, 8, 3), "float32")
    preprocess = Preprocess().for_input(spec)
    one, other = (list(synthetic(preprocess, [spec], 3)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[0].dtype == np.uint8
    assert not np.array_equal(one[0], one[1])


def test_arrays_and_iterables_are_rgb_and_become_bgr_frames():
    red = np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    for data in (red, list(red)):
        frame = load_data(data).read(0)
        assert frame[0, 0].tolist() == [0, 0, 255]


@pytest.mark.convert
def test_settings_come_in_pythons_own_forms_and_the_recipe_keeps_them(
    colour_model, colours, tmp_path
):
    bundle = edgekit.convert(
        colour_model,
        tmp_path / "m.edgekit",
        preprocess=Preprocess(scale=1 / 255, resize="letterbox"),
        labels=["red", "green", "blue"],
        input_shape=[1, SIDE, SIDE, 3],
        eval_data=colours,
        max_drop="0.5%",
    )
    recipe = bundle.manifest.recipe
    assert Preprocess.parse(recipe["preprocess"]) == Preprocess(scale=1 / 255, resize="letterbox")
    assert recipe["labels"] == ["red", "green", "blue"]
    assert recipe["max_drop"] == 0.005
    assert recipe["eval_data"] is None  # an array in memory has no name
    assert bundle.labels == ("red", "green", "blue")


@pytest.mark.convert
def test_calibration_labels_are_no_evaluation(colour_model, colours, tmp_path):
    wrong = (colours[0], (colours[1] + 1) % 3)
    bundle = edgekit.convert(
        colour_model, tmp_path / "m.edgekit", precision="int8", data=wrong, preprocess="unit"
    )
    assert bundle.manifest.accuracy is None


@pytest.mark.convert
def test_token_ids_are_model_inputs(keras, tmp_path):
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    embedded = keras.layers.Embedding(500, 4)(tokens)
    flat = keras.layers.Flatten()(embedded)
    model = keras.Model(tokens, keras.layers.Dense(2)(flat))
    ids = np.random.default_rng(0).integers(0, 500, (20, 6))
    bundle = edgekit.convert(model, tmp_path / "m.edgekit", data=ids, task="regression")
    with edgekit.open(bundle.path) as opened:
        expected = np.asarray(model(ids[:1]))
        assert np.abs(opened(ids[0]).raw - expected).max() < 1e-4
        with pytest.raises(DataError, match="is int32; got larger values"):
            opened(ids[0] + 2**40)


def test_axes_of_size_one_do_not_matter_and_other_shapes_name_the_sample(classifier_bundle):
    from edgekit.converters.samples import model_inputs

    spec = TensorSpec("x", (1, 49, 10), "float32")
    preprocess = Preprocess().for_input(spec)
    fits = load_data(np.zeros((2, 49, 10, 1), np.float32))
    assert [inputs[0].shape for inputs in model_inputs(fits, preprocess, [spec])] == [
        (1, 49, 10)
    ] * 2
    other = load_data(np.zeros((2, 10, 49), np.float32))
    with pytest.raises(
        DataError, match=r"the array, sample 0: the model's input 'x' takes \[49, 10\]"
    ):
        list(model_inputs(other, preprocess, [spec]))


def test_seeded_samples_of_several_inputs_begin_with_a_picture():
    picture = TensorSpec("picture", (1, 8, 8, 3), "float32")
    vector = TensorSpec("vector", (1, 5), "float32")
    preprocess = Preprocess.parse("unit").for_input(picture)
    (first, second), *_ = synthetic(preprocess, [picture, vector], 2)
    assert (first.dtype, first.shape) == (np.uint8, (8, 8, 3))
    assert (second.dtype, second.shape) == (np.float32, (5,))
