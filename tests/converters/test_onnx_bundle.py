"""From trained models to ONNX bundles: the same model and the same range table, a second format."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.converters.recipe import Recipe
from edgekit.errors import DataError, ModelError, UsageError
from edgekit.specs import TensorSpec

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from keras_models import MODELS, SIDE, with_statistics  # noqa: E402

from edgekit.converters.formats.onnx import emit, fitted  # noqa: E402
from edgekit.converters.onnx.lint import lint  # noqa: E402
from edgekit.converters.quantize.ranges import read_ranges  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.sources.onnx import open_session  # noqa: E402

layers = keras.layers
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 256, (24, SIDE, SIDE, 3)).astype(np.uint8)
LABELS = RANDOM.integers(0, 5, 24)
SEQUENCES = RANDOM.normal(size=(24, 10, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    """Return every model, its BatchNormalizations with statistics as after training."""
    keras.utils.set_random_seed(1)
    return {name: with_statistics(build(), RANDOM) for name, build in MODELS.items()}


def data_of(name):
    return SEQUENCES if name in ("lstm", "gru") else PICTURES


def kinds(bundle):
    return [node.op_type for node in onnx.load(Path(bundle.path) / "model.onnx").graph.node]


@pytest.mark.parametrize("name", MODELS)
def test_float_models_compute_as_their_source(models, name, tmp_path):
    bundle = edgekit.convert(
        models[name], tmp_path / "m.edgekit", format="onnx", data=data_of(name), preprocess="unit"
    )
    manifest = bundle.manifest
    assert (manifest.format, manifest.model, manifest.precision) == ("onnx", "model.onnx", "fp32")
    assert manifest.parity.max_abs < 1e-4 and manifest.parity.snr_db > 100
    assert [spec.name for spec in manifest.outputs] == models[name].output_names
    assert not {"BatchNormalization", "Pad", "Identity"} & set(kinds(bundle))
    # Steps come first in an LSTM; a Dense layer counts flattened pictures with channels last.
    assert kinds(bundle).count("Transpose") <= (name in ("lstm", "gru", "resnet"))
    assert kinds(bundle).count("LSTM") == (2 if name == "lstm" else 0)
    onnx.checker.check_model(str(bundle.model_path), full_check=True)
    with edgekit.open(bundle.path) as opened:  # replays the golden samples
        assert "ONNX Runtime" in opened.backend.executes


def test_what_onnx_cannot_express_is_named(tmp_path):
    image = keras.Input((SIDE, SIDE, 3), name="image")
    model = keras.Model(image, keras.ops.argmax(layers.Conv2D(4, 3)(image), -1))
    with pytest.raises(ModelError, match="ONNX has nothing for .* TensorFlow operators Bit"):
        edgekit.convert(model, tmp_path / "m.edgekit", format="onnx", data=PICTURES)


@pytest.mark.parametrize("name", ["mobilenet", "resnet", "unet", "lstm"])
def test_fp16_is_typed_and_near(models, name, tmp_path):
    bundle = edgekit.convert(
        models[name],
        tmp_path / "m.edgekit",
        format="onnx",
        precision="fp16",
        data=data_of(name),
        preprocess="unit",
    )
    graph = onnx.load(bundle.model_path).graph
    assert any(i.data_type == onnx.TensorProto.FLOAT16 for i in graph.initializer)
    assert bundle.manifest.inputs[0].dtype == "float32"
    assert 45 < bundle.manifest.parity.snr_db < 120
    assert not lint(onnx.load(bundle.model_path))


@pytest.mark.parametrize("name", ["mobilenet", "resnet", "unet", "grouped"])
def test_int8_for_a_jetson_is_what_tensorrt_takes_and_fuses(models, name, tmp_path):
    bundle = edgekit.convert(
        models[name],
        tmp_path / "m.edgekit",
        target="jetson-orin-nano",
        precision="int8",
        data=PICTURES,
        preprocess="unit",
    )
    assert bundle.manifest.format == "onnx" and bundle.manifest.fallbacks == ()
    # Not those of the softmax that was taken out of its layer: programs go by these names.
    assert [spec.name for spec in bundle.manifest.outputs] == models[name].output_names
    assert not lint(onnx.load(bundle.model_path), bundle.path)
    assert bundle.manifest.parity.snr_db > 20
    table = read_ranges(bundle.path)
    assert table.steps == ("equalize", "round", "correct") and "image" in table.tensors


def test_int8_for_a_cpu_spans_the_range(models, tmp_path):
    bundle = edgekit.convert(
        models["resnet"],
        tmp_path / "m.edgekit",
        target="x86-cpu",
        format="onnx",
        precision="int8",
        data=PICTURES,
        preprocess="unit",
    )
    found = onnx.load(bundle.model_path).graph
    points = [i for i in found.initializer if i.name.endswith("/zero_point") and not i.dims]
    assert points and all(p.data_type == onnx.TensorProto.UINT8 for p in points)
    assert bundle.manifest.parity.snr_db > 20


def test_recurrent_layers_stay_float_in_int8_and_are_named(models, tmp_path):
    bundle = edgekit.convert(
        models["lstm"], tmp_path / "m.edgekit", format="onnx", precision="int8", data=SEQUENCES
    )
    assert kinds(bundle).count("LSTM") == 2 and "QuantizeLinear" in kinds(bundle)
    reasons = [fallback.reason for fallback in bundle.manifest.fallbacks]
    assert reasons == ["neither ONNX Runtime nor TensorRT has an int8 LSTM"] * 2


def test_one_table_makes_both_formats(models, tmp_path):
    """What differs between the two are steps around zero or over the range, and the kernels."""
    settings = {"precision": "int8", "data": PICTURES, "preprocess": "unit"}
    lite = edgekit.convert(models["resnet"], tmp_path / "lite.edgekit", **settings)
    same = edgekit.convert(
        models["resnet"], tmp_path / "same.edgekit", format="onnx", ranges=lite.path, **settings
    )
    tables = [read_ranges(bundle.path).tensors for bundle in (lite, same)]
    assert all(tables[1][name] == found for name, found in tables[0].items())
    answers = []
    for bundle in (lite, same):
        with edgekit.open(bundle.path) as model:
            answers.append([model(picture).raw for picture in PICTURES])
    real = np.ravel(answers[0])
    assert np.corrcoef(real, np.ravel(answers[1]))[0, 1] > 0.99
    back = edgekit.convert(
        models["resnet"], tmp_path / "back.edgekit", ranges=same.path, **settings
    )
    assert back.model_path.read_bytes() == lite.model_path.read_bytes()


def test_an_edited_range_clips_and_an_unknown_layer_is_refused(models, tmp_path):
    settings = {"format": "onnx", "precision": "int8", "data": PICTURES, "int8_steps": ()}
    first = edgekit.convert(models["resnet"], tmp_path / "a.edgekit", **settings)
    table = json.loads((first.path / "ranges.json").read_text())
    table["tensors"]["image"] = {"min": 0.0, "max": 127.0}
    edited = tmp_path / "ranges.json"
    edited.write_text(json.dumps(table))
    bundle = edgekit.convert(models["resnet"], tmp_path / "b.edgekit", ranges=edited, **settings)
    scales = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in onnx.load(bundle.model_path).graph.initializer
    }
    assert scales["image/scale"] == 1.0
    table["tensors"]["no_such"] = {"min": 0.0, "max": 1.0}
    edited.write_text(json.dumps(table))
    with pytest.raises(DataError, match="name what this model does not have .no_such"):
        edgekit.convert(models["resnet"], tmp_path / "c.edgekit", ranges=edited, **settings)


def test_a_table_stands_for_data_only_where_no_step_needs_it(models, tmp_path):
    settings = {"format": "onnx", "precision": "int8"}
    first = edgekit.convert(
        models["resnet"], tmp_path / "a.edgekit", data=PICTURES, int8_steps=(), **settings
    )
    with pytest.raises(UsageError, match="`ranges` stand for the calibration set.*need it too"):
        edgekit.convert(models["resnet"], tmp_path / "b.edgekit", ranges=first.path, **settings)
    again = edgekit.convert(
        models["resnet"], tmp_path / "b.edgekit", ranges=first.path, int8_steps=(), **settings
    )
    assert again.model_path.read_bytes() == first.model_path.read_bytes()


def test_a_table_of_another_preprocess_is_refused(models, tmp_path):
    settings = {"precision": "int8", "data": PICTURES, "int8_steps": ()}
    first = edgekit.convert(models["resnet"], tmp_path / "a.edgekit", preprocess="unit", **settings)
    told = r"with `preprocess` scale=0.0039\d+, and this conversion has raw: .*say --preprocess"
    with pytest.raises(UsageError, match=told):
        edgekit.convert(models["resnet"], tmp_path / "b.edgekit", ranges=first.path, **settings)


def test_pictures_are_nchw_and_masks_too(models, tmp_path):
    bundle = edgekit.convert(models["unet"], tmp_path / "m.edgekit", format="onnx", data=PICTURES)
    manifest = bundle.manifest
    assert manifest.inputs[0].shape == (1, 3, SIDE, SIDE) and manifest.preprocess.layout == "nchw"
    assert manifest.outputs[0].shape == (1, 3, SIDE, SIDE) and manifest.task == "segmentation"
    frame = np.ascontiguousarray(PICTURES[0][..., ::-1])
    wanted = np.asarray(models["unet"](PICTURES[:1].astype(np.float32)))[0]
    with edgekit.open(bundle.path) as model:
        np.testing.assert_allclose(model(frame).raw[0], wanted.transpose(2, 0, 1), atol=1e-4)
        assert model(frame).value.class_map.shape == (SIDE, SIDE)
        # Arrays as the source takes them have their channels last; both ways are understood.
        last = PICTURES[0].astype(np.float32)
        one, other = model(last).raw, model(np.moveaxis(last, -1, 0)).raw
        np.testing.assert_array_equal(one, other)


def test_sets_of_the_sources_layout_calibrate(models, tmp_path):
    real = (PICTURES / 255).astype(np.float32)
    bundle = edgekit.convert(
        models["resnet"], tmp_path / "m.edgekit", format="onnx", precision="int8", data=real
    )
    assert bundle.manifest.parity.snr_db > 20


def test_evaluate_against_its_source(models, tmp_path):
    from edgekit.converters.against import evaluate_against

    models["resnet"].save(tmp_path / "m.keras")
    np.savez(tmp_path / "set.npz", x=PICTURES, y=LABELS)
    bundle = edgekit.convert(
        tmp_path / "m.keras", tmp_path / "m.edgekit", format="onnx", preprocess="unit"
    )
    found = evaluate_against(
        str(bundle.path), str(tmp_path / "set.npz"), str(tmp_path / "m.keras"), lambda *_: None
    )
    assert found["metrics"]["snr_db"] > 100 and found["metrics"]["agreement"] == 1


def test_an_onnx_file_is_a_source_of_its_own(models, tmp_path):
    first = edgekit.convert(models["resnet"], tmp_path / "a.edgekit", format="onnx")
    settings = {"data": PICTURES, "preprocess": "unit"}
    for precision, least_db in (("fp32", 150), ("fp16", 45), ("int8", 20)):
        out = tmp_path / f"{precision}.edgekit"
        bundle = edgekit.convert(first.model_path, out, precision=precision, **settings)
        assert bundle.manifest.format == "onnx"
        assert bundle.manifest.provenance.source_kind == "onnx"
        assert bundle.manifest.parity.snr_db > least_db
    again = edgekit.convert(bundle.model_path, tmp_path / "again.edgekit", precision="int8")
    assert again.manifest.parity.snr_db > 100
    with pytest.raises(
        ModelError, match="is int8 already and cannot become fp16; say `precision` int8"
    ):
        edgekit.convert(bundle.model_path, tmp_path / "no.edgekit", precision="fp16")
    with pytest.raises(UsageError, match="a .onnx becomes onnx; got `format` 'litert'"):
        edgekit.convert(first.model_path, tmp_path / "no.edgekit", format="litert")


def test_quantize_aware_models_keep_what_they_learned(tmp_path):
    model = MODELS["resnet"]()
    aware = edgekit.quantize_aware(model, calibration=(PICTURES / 255).astype(np.float32))
    bundle = edgekit.convert(aware, tmp_path / "m.edgekit", format="onnx", precision="int8")
    assert read_ranges(bundle.path).origin == "trained"
    assert bundle.manifest.fallbacks == () and not lint(onnx.load(bundle.model_path))
    with pytest.raises(ModelError, match="was trained for integers and cannot become fp16"):
        edgekit.convert(aware, tmp_path / "no.edgekit", format="onnx", precision="fp16")


@pytest.mark.parametrize(
    ("settings", "suffix", "ready", "wanted"),
    [
        ({}, "", True, ("litert", "fp32")),
        ({}, ".onnx", True, ("onnx", "fp32")),
        ({"target": "jetson-orin-nano"}, "", True, ("onnx", "int8")),
        ({"target": "jetson-orin-nano"}, "", False, ("onnx", "fp16")),
        ({"target": "jetson-orin-nano"}, ".tflite", False, ("litert", "fp32")),
        ({"target": "jetson-orin-nano", "precision": "fp32"}, "", True, ("onnx", "fp32")),
        ({"target": "raspberry-pi-5"}, "", True, ("litert", "int8")),
        ({"target": "raspberry-pi-5"}, ".onnx", False, ("onnx", "fp32")),
        ({"target": "x86-cpu", "format": "onnx"}, ".keras", True, ("onnx", "int8")),
    ],
)
def test_a_target_picks_format_and_precision(settings, suffix, ready, wanted):
    found = Recipe(**settings).resolved(suffix, can_calibrate=ready)
    assert (found.format, found.precision) == wanted


@pytest.mark.parametrize(
    ("settings", "suffix", "told"),
    [
        (
            {"target": "jetson-orin-nano", "precision": "dynamic", "format": "onnx"},
            "",
            "`target` jetson-orin-nano runs onnx in int8, fp16, fp32; litert in .*got `format` "
            "'onnx', `precision` 'dynamic'",
        ),
        (
            {"format": "onnx", "precision": "int16x8"},
            "",
            "`format` onnx comes in fp32, fp16, int8; got `precision` 'int16x8'",
        ),
        ({"ranges": "r.json", "precision": "fp16"}, "", "`ranges` are for int8.*got.*'fp16'"),
        ({"format": "coreml"}, "", "format.*litert, onnx.*coreml"),
        ({"format": "onnx"}, ".tflite", "a .tflite becomes litert; got `format` 'onnx'"),
        ({"target": "toaster"}, "", "target.*jetson-orin-nano.*toaster"),
    ],
)
def test_what_a_device_cannot_do_is_refused_with_what_it_can(settings, suffix, told):
    with pytest.raises(UsageError, match=told):
        Recipe(**settings).resolved(suffix, can_calibrate=True)


def test_a_saved_model_becomes_onnx(models, tmp_path):
    models["resnet"].export(tmp_path / "saved", verbose=False)
    bundle = edgekit.convert(
        tmp_path / "saved",
        tmp_path / "m.edgekit",
        format="onnx",
        precision="int8",
        data=PICTURES,
        preprocess="unit",
    )
    assert bundle.manifest.parity.snr_db > 20 and bundle.manifest.fallbacks == ()


def test_several_inputs_and_outputs_keep_order_and_names(tmp_path):
    one = keras.Input((8, 8, 3), name="picture")
    two = keras.Input((4,), name="facts")
    x = layers.Flatten()(layers.Conv2D(2, 3, name="c")(one))
    x = layers.Concatenate()([layers.Dense(4)(x), two])
    model = keras.Model([one, two], [layers.Dense(3, name="a")(x), layers.Dense(2, name="b")(x)])
    source = fitted(open_source(model, scratch=tmp_path))
    found = onnx.ModelProto.FromString(emit(source, "fp32", None).content)
    assert [i.name for i in found.graph.input] == ["picture", "facts"]
    assert [o.name for o in found.graph.output] == ["a", "b"]
    given = [RANDOM.normal(size=s.shape).astype(np.float32) for s in source.inputs]
    session = open_session(found, "it")
    answers = session.run(None, {"picture": given[0], "facts": given[1]})
    for answer, wanted in zip(answers, source.predict(given), strict=True):
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)
    assert source.inputs[0] == TensorSpec("picture", (1, 3, 8, 8), "float32")


def test_a_residual_sum_of_single_places_is_a_sum(tmp_path):
    """At batch 1 Keras takes a map of 1x1 for a bias, and so did tf2onnx: a second one."""
    picture = keras.Input((2, 2, 3), name="picture")
    one, two = (layers.Conv2D(4, 2, bias_initializer="ones")(picture) for _ in range(2))
    x = layers.Add()([layers.Add()([one, two]), layers.GlobalMaxPooling2D(keepdims=True)(two)])
    source = fitted(open_source(keras.Model(picture, layers.ReLU()(x)), scratch=tmp_path))
    found = onnx.ModelProto.FromString(emit(source, "fp32", None).content)
    onnx.checker.check_model(found, full_check=True)
    given = RANDOM.normal(size=(1, 3, 2, 2)).astype(np.float32)
    (answer,) = open_session(found, "it").run(None, {"picture": given})
    np.testing.assert_allclose(answer, source.predict([given])[0], rtol=1e-4, atol=1e-5)


def test_the_command_line_picks_the_format(models, tmp_path):
    import subprocess

    models["resnet"].save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", PICTURES)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgekit", "convert", tmp_path / "m.keras"),
            *("-o", tmp_path / "m.edgekit", "--target", "jetson-orin-nano", "--preprocess"),
            *("unit", "--data", tmp_path / "x.npy", "--json", "-"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["format"], told["precision"]) == ("onnx", "int8")
    assert read_bundle(tmp_path / "m.edgekit").manifest.target == "jetson-orin-nano"
