import hashlib
import io
import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.errors import BundleError, CheckFailed, DataError, EdgeKitError, UsageError

COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "white": (255,) * 3}
# The classifier's last layer as it stands in its files.
INT8_WEIGHTS = np.array(
    [[127, -127, -127], [-127, 127, -127], [-127, -127, 127], [127, 127, 127]], np.int8
)
FP32_WEIGHTS = np.array([[8, -8, -8], [-8, 8, -8], [-8, -8, 8], [4, 4, 4]], np.float32)


def one_colour(name, size=(40, 30)):
    return np.full((*size, 3), COLOURS[name], np.uint8)


def replace_file(bundle, name, content):
    """Change a file of a bundle and its hash, as someone who knows the format would."""
    (bundle / name).write_bytes(content)
    change_manifest(
        bundle, lambda m: m["files"].update({name: hashlib.sha256(content).hexdigest()})
    )


def change_manifest(bundle, change):
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    change(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


def replace_weights(bundle, old, new):
    content = (bundle / "model.tflite").read_bytes()
    assert content.count(old.tobytes()) == 1
    replace_file(bundle, "model.tflite", content.replace(old.tobytes(), new.tobytes()))


def change_golden(bundle, change):
    with np.load(bundle / "golden.npz") as stored:
        arrays = dict(stored)
    change(arrays)
    content = io.BytesIO()
    np.savez(content, **arrays)
    replace_file(bundle, "golden.npz", content.getvalue())


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("as_path", [str, lambda path: path, read_bundle])
def test_open_by_path_or_bundle_and_call(classifier_bundle, as_path, name):
    with edgekit.open(as_path(classifier_bundle)) as model:
        prediction = model(one_colour(name))
    assert prediction.value[0].label == name
    assert prediction.raw.shape == (1, 4)
    assert prediction.raw.dtype == np.float32
    assert prediction.raw[0].argmax() == prediction.value[0].index
    assert prediction.outputs[0].dtype == np.int8
    assert name in repr(prediction)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_segmenter_gives_a_map_at_the_frames_size(make_bundle, precision):
    frame = np.zeros((50, 80, 3), np.uint8)
    frame[:, 40:] = COLOURS["red"]
    with edgekit.open(make_bundle(name="segmenter", precision=precision)) as model:
        value = model(frame).value
    assert value.class_map.shape == (50, 80)
    assert {value.name(i) for i in value.class_map[:, :35].reshape(-1)} == {"dark"}
    assert {value.name(i) for i in value.class_map[:, 45:].reshape(-1)} == {"red"}


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_predictions_own_their_memory_and_repeat(make_bundle, precision):
    with edgekit.open(make_bundle(precision=precision)) as model:
        first = model(one_colour("red"))
        kept = [first.raw.copy(), first.outputs[0].copy(), first.value]
        for name in COLOURS:
            assert model(one_colour(name)).value[0].label == name
        again = model(one_colour("red"))
    np.testing.assert_array_equal(first.raw, kept[0])
    np.testing.assert_array_equal(first.outputs[0], kept[1])
    np.testing.assert_array_equal(again.raw, kept[0])
    assert not np.shares_memory(again.outputs[0], first.outputs[0])
    assert first.value == kept[2] == again.value


def test_the_stages_one_by_one_are_the_call(classifier_bundle):
    frame = one_colour("green")
    with edgekit.open(classifier_bundle) as model:
        model.preprocess(frame)
        staged = model.postprocess(frame, model.infer())
        assert staged.value == model(frame).value


def test_float_arrays_are_model_inputs(classifier_bundle):
    rgb = one_colour("blue", (16, 16))[..., ::-1].astype(np.float32)
    with edgekit.open(classifier_bundle) as model:
        assert model(rgb).value == model(rgb[None]).value == model(one_colour("blue")).value


def test_a_refused_frame_does_not_stand_in_the_way_of_the_next(classifier_bundle):
    with edgekit.open(classifier_bundle) as model:
        with pytest.raises(DataError) as kept:
            model(np.zeros((3, 3), np.int64))
        assert model(one_colour("red")).value[0].label == "red"
    assert "int64" in str(kept.value)


@pytest.mark.parametrize("frames", [(), (one_colour("red"),) * 2])
def test_the_number_of_inputs_must_be_the_models(classifier_bundle, frames):
    with edgekit.open(classifier_bundle) as model:
        with pytest.raises(DataError, match=f"takes 1 inputs; got {len(frames)}"):
            model(frames)
        assert model((one_colour("red"),)).value[0].label == "red"


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_are_those_asked_for_and_change_no_result(classifier_bundle, threads):
    with edgekit.open(classifier_bundle, threads=threads) as model:
        assert model.backend.threads == threads
        assert model(one_colour("white")).value[0].label == "white"


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"backend": "litertt"}, "`backend` must be one of .*litert.*; got 'litertt'"),
        ({"threads": 0}, "`threads` must be at least 1; got 0"),
        ({"threads": 100_000}, "`threads` must be at most 1024; got 100000"),
        ({"threads": -2}, "at least 1; got -2"),
    ],
)
def test_wrong_choices_say_what_there_is(classifier_bundle, choices, says):
    with pytest.raises(UsageError, match=says):
        edgekit.open(classifier_bundle, **choices)


def test_a_format_that_no_backend_reads(make_bundle):
    bundle = make_bundle()
    change_manifest(bundle, lambda m: m.update(format="stone"))
    with pytest.raises(UsageError, match="'stone'"):
        edgekit.open(bundle)
    with pytest.raises(UsageError, match="litert reads litert; the bundle is stone"):
        edgekit.open(bundle, backend="litert")


@pytest.mark.parametrize(
    ("precision", "old", "new"),
    [
        ("int8", INT8_WEIGHTS, INT8_WEIGHTS[[3, 1, 2, 0]]),
        ("fp32", FP32_WEIGHTS, FP32_WEIGHTS[[3, 1, 2, 0]]),
        ("fp32", FP32_WEIGHTS, FP32_WEIGHTS * np.float32(0.9)),
        ("fp32", FP32_WEIGHTS, FP32_WEIGHTS * np.float32(np.nan)),
    ],
    ids=["int8 swapped", "fp32 swapped", "fp32 scaled", "fp32 nan"],
)
def test_golden_samples_catch_another_model_with_the_right_hash(make_bundle, precision, old, new):
    bundle = make_bundle(precision=precision)
    replace_weights(bundle, old, new)
    with pytest.raises(CheckFailed, match="computes other outputs here") as caught:
        edgekit.open(bundle)
    assert caught.value.exit_code == 1
    edgekit.open(bundle, check=False).close()


@pytest.mark.parametrize(
    "change",
    [
        {"color": "bgr"},
        {"scale": 0.9},
        {"scale": -1.0},
        {"mean": [8]},
        {"std": [1.2]},
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_golden_frames_catch_another_preprocessing(make_bundle, precision, change):
    bundle = make_bundle(precision=precision)
    change_manifest(bundle, lambda m: m["preprocess"].update(change))
    with pytest.raises(CheckFailed, match="preprocessing differs"):
        edgekit.open(bundle)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("name", ["classifier", "segmenter"])
@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize(
    "preprocess", ["raw", "unit", "imagenet", "raw,resize=letterbox,color=bgr"]
)
def test_golden_samples_pass_where_nothing_was_changed(
    make_bundle, name, precision, frames, preprocess
):
    bundle = make_bundle(name=name, precision=precision, frames=frames, preprocess=preprocess)
    edgekit.open(bundle).close()


def to_nan(key):
    def change(arrays):
        arrays[key] = np.full_like(arrays[key], np.nan)

    return change


@pytest.mark.parametrize("key", ["output_1_0", "input_0_0"])
def test_golden_samples_that_hold_nan_never_pass(make_bundle, key):
    bundle = make_bundle(precision="fp32")
    change_golden(bundle, to_nan(key))
    with pytest.raises(CheckFailed):
        edgekit.open(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update(input_0_0=arrays["input_0_0"][:, :8]),
        lambda arrays: arrays.update(input_0_0=arrays["input_0_0"].astype(np.float64)),
        lambda arrays: arrays.update(output_2_0=arrays["output_2_0"][0]),
        lambda arrays: arrays.update(frame_1=arrays["frame_1"].astype(np.int64)),
        lambda arrays: arrays.pop("output_0_0"),
    ],
    ids=["input shape", "input dtype", "output shape", "frame dtype", "missing"],
)
def test_golden_samples_of_another_form_are_an_error_of_one_line(make_bundle, change):
    bundle = make_bundle()
    change_golden(bundle, change)
    with pytest.raises(EdgeKitError) as caught:
        edgekit.open(bundle)
    assert "\n" not in str(caught.value)


def test_a_model_with_other_tensors_than_the_manifest_says(make_bundle, classifier_bundle):
    bundle = make_bundle(name="segmenter")
    replace_file(bundle, "model.tflite", (classifier_bundle / "model.tflite").read_bytes())
    with pytest.raises(BundleError, match="has tensors .*; the manifest says"):
        edgekit.open(bundle)


def test_a_changed_file_is_refused_before_it_is_loaded(make_bundle):
    bundle = make_bundle()
    content = bytearray((bundle / "model.tflite").read_bytes())
    content[700] ^= 1
    (bundle / "model.tflite").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.tflite does not match its hash"):
        edgekit.open(bundle)


def test_postprocessing_is_the_bundles(make_bundle):
    bundle = read_bundle(make_bundle(precision="fp32"))
    post = msgspec.structs.replace(bundle.manifest.postprocess, top_k=2)
    manifest = msgspec.structs.replace(bundle.manifest, postprocess=post)
    changed = msgspec.structs.replace(bundle, manifest=manifest)
    with edgekit.open(changed, check=False) as model:
        assert len(model(one_colour("red")).value) == 2
    with pytest.raises(CheckFailed, match="golden sample 0: the outputs decode to"):
        edgekit.open(changed)


def test_swapped_class_names_are_caught(make_bundle):
    bundle = read_bundle(make_bundle())
    swapped = msgspec.structs.replace(bundle, labels=("green", "red", "blue", "white"))
    with pytest.raises(CheckFailed, match="the outputs decode to"):
        edgekit.open(swapped)


def test_a_closed_model_says_so(make_bundle):
    model = edgekit.open(make_bundle())
    model.close()
    with pytest.raises(UsageError, match="the model is closed; open it again"):
        model(one_colour("red"))


def test_a_whole_run_loads_no_training_framework(classifier_bundle, tmp_path):
    sinks = ["--sink", str(tmp_path / "out.jsonl"), "--sink", str(tmp_path / "out.mp4")]
    code = (
        "import json, sys\n"
        "from edgekit.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    source = ["run", str(classifier_bundle), "--source", "test://64x48", "--max-frames", "5"]
    done = subprocess.run(
        [sys.executable, "-c", code, *source, *sinks], capture_output=True, text=True, check=True
    )
    exit_code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == 0
    assert {"edgekit", "cv2"} <= set(loaded)
    assert not {"tensorflow", "keras", "tf_keras", "torch", "ai_edge_quantizer"} & set(loaded)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5
