"""What is doubtful about a calibration set, and that real sets are not doubted."""

import json
import re
import tracemalloc

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.converters.audit import audit, range_finding, unstable_ranges
from edgekit.converters.samples import subset, synthetic
from edgekit.data import Dataset, load_data
from edgekit.demo.frames import make_set
from edgekit.specs import PRESETS, Preprocess, TensorSpec

RGB = (32, 32, 3)


def findings(data, preprocess="raw", shape=RGB, evaluation=None, dtype="float32"):
    """Return the findings of an audit by kind; `shape` is the model's input."""
    spec = TensorSpec("x", (1, *shape), dtype)
    complete = Preprocess.parse(preprocess).for_input(spec)
    other = None if evaluation is None else load_data(evaluation)
    found = audit(load_data(data), other, complete, [spec])
    assert all("\n" not in finding.message for finding in found)
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


@pytest.fixture(scope="module")
def pictures():
    """Return 120 plausible pictures, uint8 RGB [n, 32, 32, 3]."""
    return make_set(120, seed=7, size=RGB[:2])[0]


def as_preset(pictures, name):
    """Return what the preset `name` makes of RGB pictures, as a user's own loop would."""
    preset = PRESETS[name]
    ordered = pictures[..., ::-1] if preset.color == "bgr" else pictures
    return ((ordered * preset.scale - preset.mean) / preset.std).astype(np.float32)


def test_plausible_pictures_are_not_doubted(pictures):
    other, _ = make_set(30, seed=8, size=RGB[:2])
    assert findings(pictures, "unit", evaluation=other) == {}


@pytest.mark.parametrize("name", PRESETS)
def test_floats_that_the_preprocess_would_yield_are_not_doubted(pictures, name):
    assert findings(as_preset(pictures, name), name) == {}
    assert findings(as_preset(pictures, name).transpose(0, 3, 1, 2), name, (3, 32, 32)) == {}


@pytest.mark.parametrize("preprocess", PRESETS)
@pytest.mark.parametrize("name", PRESETS)
def test_floats_in_the_scale_of_another_preset_are_told_and_named(pictures, name, preprocess):
    found = findings(as_preset(pictures, name), preprocess)
    if name == preprocess:
        assert found == {}
    else:
        assert set(found) == {"scale"}
        assert f"they look like `{name}`: choose that" in found["scale"].message


def test_one_sample_far_out_of_scale_is_told(pictures):
    floats = as_preset(pictures, "unit")
    floats[40] *= 3
    message = findings(floats, "unit")["scale"].message
    assert message.startswith("1 of 120 samples of the array are in another scale")
    assert "expected 0..1: scale them as the preprocess does" in message


def test_soft_pictures_and_the_overshoot_of_a_resize_are_in_scale(pictures):
    assert findings(0.25 + as_preset(pictures, "unit") / 2, "unit") == {}
    assert findings(as_preset(pictures, "unit") * 1.02 - 0.01, "unit") == {}


def test_floats_of_no_known_scale_in_a_twentieth_of_the_range_are_told(pictures):
    message = findings(as_preset(pictures, "unit") * 7 + 1, "raw")["scale"].message
    assert "floats of 1..8, expected 0..255: scale them" in message


def test_frames_of_zeros_and_ones_are_told(pictures):
    found = findings((pictures > 127).astype(np.uint8), "unit")
    assert "no value of the uint8 frames of the array is above 1" in found["scale"].message


def test_scale_is_not_judged_where_none_is_expected():
    random = np.random.default_rng(0)
    spectra = np.cumsum(random.normal(0, 9, (120, 49, 10, 1)), axis=1).astype(np.float32)
    assert findings(spectra, shape=(49, 10, 1)) == {}  # smooth in time, not over coefficients
    vectors = random.normal(size=(120, 40)).astype(np.float32)
    assert findings(vectors, shape=(40,)) == {}
    assert findings(vectors, "unit", shape=(40,)) == {}  # floats are scaled as well
    masks = random.integers(0, 2, (120, 4, 4)).astype(np.uint8).repeat(6, 1).repeat(6, 2)
    assert findings(masks, shape=(24, 24, 1), dtype="int32") == {}
    assert set(findings(masks, shape=(24, 24, 1))) == {"scale"}


@pytest.mark.parametrize("shape", [(16, 16, 3), (49, 10, 1), (224, 224, 3), (3, 40, 40)])
@pytest.mark.parametrize("kind", ["uniform", "gaussian", "tinted"])
def test_noise_is_told(shape, kind):
    random = np.random.default_rng(0)
    drawn = {
        "uniform": lambda: random.uniform(-1, 1, (100, *shape)),
        "gaussian": lambda: np.clip(random.normal(0, 0.4, (100, *shape)), -1, 1),
        "tinted": lambda: random.uniform(-1, 0.8, (100, 1, 1, 1)) + random.uniform(0, 0.2, shape),
    }[kind]()
    found = findings(drawn.astype(np.float32), "signed", shape)
    assert found["noise"].count == 100
    assert "expected more than 0.2: use samples like those of the device" in found["noise"].message


def test_noise_is_told_in_frames_of_any_size_and_a_few_are_passed_over(pictures):
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (60, 90, 3)).astype(np.uint8) for _ in range(30)]
    assert findings([*pictures, *noise])["noise"].count == 30
    assert findings([*pictures, *noise[:10]]) == {}


def test_a_shuffled_order_of_pixels_is_noise(pictures):
    order = np.random.default_rng(0).permutation(32 * 32)
    shuffled = pictures.reshape(-1, 32 * 32, 3)[:, order].reshape(pictures.shape)
    assert "order of rows and channels" in findings(shuffled)["noise"].message


def test_constant_samples_are_counted_and_the_first_is_named(pictures):
    spoilt = pictures.copy()
    spoilt[[30, 77]] = 0
    found = findings(spoilt)
    assert set(found) == {"constant"}
    assert "2 of 120 samples" in found["constant"].message
    assert "(first: calibration sample 30)" in found["constant"].message
    silence = np.random.default_rng(0).normal(size=(120, 20, 4)).astype(np.float32)
    silence[5] = -1.5
    assert findings(silence, shape=(20, 4))["constant"].count == 1
    padding = np.zeros((1, 20), np.int64)
    tokens = np.concatenate([np.arange(2400).reshape(120, 20), padding])
    assert findings(tokens, shape=(20,), dtype="int64") == {}


def test_too_few_samples(pictures):
    message = findings(pictures[:40])["few"].message
    assert "40 samples of the array calibrate, expected 100 to 500: up to 5 %" in message
    assert "few" not in findings(pictures[:100])


def test_frames_of_one_scene_are_told():
    random = np.random.default_rng(0)
    scene = make_set(1, seed=3, size=(120, 160))[0][0].astype(np.float32)
    shaken = [
        np.roll(scene, tuple(random.integers(-2, 3, 2)), (0, 1)) * random.uniform(0.95, 1.05)
        + random.normal(0, 8, scene.shape)
        for _ in range(100)
    ]
    found = findings([np.clip(frame, 0, 255).astype(np.uint8) for frame in shaken])
    assert set(found) == {"duplicates"}
    assert found["duplicates"].count > 80
    assert "take fewer of each scene" in found["duplicates"].message


def test_copies_are_told_in_any_kind_of_sample(pictures):
    random = np.random.default_rng(0)
    pairs = [(random.normal(size=30), random.normal(size=2)) for _ in range(60)]
    specs = [TensorSpec("a", (1, 30), "float32"), TensorSpec("b", (1, 2), "float32")]

    def kinds(samples):
        return {f.kind: f.count for f in audit(load_data(samples), None, Preprocess(), specs)}

    assert kinds([*pairs, *pairs]) == {"duplicates": 60}
    assert kinds([*pairs, *((a, b + 1) for a, b in pairs)]) == {}  # the second input differs
    assert findings(np.concatenate([pictures, pictures[:30]])) == {}  # a fifth is passed over


def test_more_scenes_than_are_kept_are_no_duplicates():
    frames, _ = make_set(600, seed=9, size=(24, 24))
    assert findings(frames, shape=(24, 24, 3)) == {}


def test_samples_in_both_sets_are_counted_whatever_the_file_they_come_from(pictures, tmp_path):
    import cv2

    (tmp_path / "val").mkdir()
    for index, picture in enumerate(pictures[100:]):
        cv2.imwrite(str(tmp_path / "val" / f"{index:03}.png"), picture[..., ::-1])
    cv2.imwrite(str(tmp_path / "val" / "other.png"), 255 - pictures[0])
    message = findings(pictures, evaluation=tmp_path / "val")["overlap"].message
    assert message.startswith("20 of 21 samples of the evaluation set")
    assert "expected none" in message
    assert findings(pictures[:100], evaluation=tmp_path / "val") == {}


def test_progress_counts_both_sets_and_each_sample_is_read_once(pictures):
    read, said = [], []
    data = load_data(pictures)
    counting = msgspec.structs.replace(data, read=lambda i: read.append(i) or data.read(i))
    spec = TensorSpec("x", (1, *RGB), "float32")
    few = subset(load_data(pictures), 10)
    audit(counting, few, Preprocess().for_input(spec), [spec], lambda *news: said.append(news))
    assert read == list(range(120))
    assert said == [(done, 130) for done in range(1, 131)]


def test_memory_does_not_grow_with_the_set():
    """Auditing 800 pictures, more than thumbnails are kept of, takes less than ten of them."""
    side = 320
    spec = TensorSpec("x", (1, side, side, 3), "float32")

    def read(index):
        coarse = np.random.default_rng(index).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        return coarse.repeat(20, axis=0).repeat(20, axis=1)

    data = Dataset("generated", 800, read, None, (), "")
    tracemalloc.start()
    try:
        found = audit(data, None, Preprocess().for_input(spec), [spec])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ()
    assert peak < 10 * side * side * 3


def test_seeded_synthetic_pictures_are_smooth():
    spec = TensorSpec("x", (1, 64, 64, 3), "float32")
    complete = Preprocess().for_input(spec)
    assert audit(synthetic(complete, [spec], 100), None, complete, [spec]) == ()


def test_real_sets_are_not_doubted(shared_data):
    """Photographs, CIFAR-10, textured microscopy, digits and spectra: nothing but their number."""
    cifar, digits, speech, membrane = (
        f"{shared_data}/{name}_dev.npz::"
        for name in ("cifar10", "mnist_rows", "kws_mfcc", "isbi_membrane")
    )
    for preprocess in ("raw", "keras:mobilenet_v2", "imagenet"):
        assert (
            findings(cifar + "x_calib,y_calib", preprocess, evaluation=cifar + "x_test,y_test")
            == {}
        )
    rows = digits + "x_train,y_train", digits + "x_test,y_test"
    for shape in ((28, 28), (28, 28, 1)):
        assert findings(rows[0], "unit", shape, evaluation=rows[1]) == {}
    spectra = speech + "x_train,y_train", speech + "x_test,y_test"
    for shape in ((49, 10), (49, 10, 1)):
        assert findings(spectra[0], "raw", shape, evaluation=spectra[1]) == {}
    assert set(findings(membrane + "image,mask", "unit", (256, 256, 1))) == {"few"}
    assert set(findings(shared_data / "photos", "imagenet", (224, 224, 3))) == {"few"}


@pytest.mark.parametrize("name", ["photos_pan_640x480", "photos_handheld_1280x720"])
def test_consecutive_frames_of_real_videos_are_told(shared_data, name):
    import cv2

    capture = cv2.VideoCapture(str(shared_data / f"{name}_30fps.mp4"))
    frames = [capture.read()[1] for _ in range(100)]
    capture.release()
    assert set(findings(frames, "unit", (224, 224, 3))) == {"duplicates"}


def ranges(random, samples=200, tensors=20):
    """Return per-sample minima and maxima as of ReLU layers on like samples."""
    high = random.gamma(20, 0.2, (samples, tensors)).astype(np.float32)
    return np.zeros_like(high), high, [f"t{i}" for i in range(tensors)]


def test_ranges_that_many_samples_share_are_stable():
    low, high, names = ranges(np.random.default_rng(0))
    assert unstable_ranges(low, high, names) == []
    assert range_finding([], len(names)) is None


@pytest.mark.parametrize("side", ["low", "high"])
def test_a_range_that_one_sample_stretches_is_told_with_the_sample(side):
    low, high, names = ranges(np.random.default_rng(0))
    if side == "high":
        high[17, 3] = 3 * high[:, 3].max()
    else:
        low[17, 3] = -2 * high[:, 3].max()
    (unstable,) = unstable_ranges(low, high, names)
    assert (unstable.name, unstable.sample) == ("t3", 17)
    assert unstable.share == pytest.approx(2 / 3, abs=0.02)
    assert (unstable.low, unstable.high) == (low[:, 3].min(), high[:, 3].max())
    finding = range_finding([unstable], len(names))
    assert finding.count == 1
    assert "1 of 20 tensors hang on single calibration samples, worst t3" in finding.message
    assert "by sample 17" in finding.message


def test_the_worst_range_comes_first_and_a_second_witness_makes_it_stable():
    low, high, names = ranges(np.random.default_rng(0))
    high[5, 1] *= 4
    high[6, 2] *= 9
    found = unstable_ranges(low, high, names)
    assert [unstable.name for unstable in found] == ["t2", "t1"]
    high[[7, 8], 2] = high[6, 2]
    assert [unstable.name for unstable in unstable_ranges(low, high, names)] == ["t1"]


def test_the_same_extremes_give_the_same_answer():
    values = np.random.default_rng(0).lognormal(sigma=1.5, size=(2, 30, 50)).astype(np.float32)
    names = [f"t{i}" for i in range(50)]
    found, again = (unstable_ranges(-values[0], values[1], names) for _ in range(2))
    assert found
    assert found == again


def test_tensors_of_one_value_have_no_range_to_lose():
    zeros = np.zeros((50, 2), np.float32)
    assert unstable_ranges(zeros, zeros, ["a", "b"]) == []


@pytest.fixture(scope="module")
def model():
    keras = pytest.importorskip("keras")
    picture = keras.Input((16, 16, 3))
    mean = keras.layers.GlobalAveragePooling2D()(picture)
    return keras.Model(picture, keras.layers.Dense(3)(mean))


def warnings_of(bundle):
    return json.loads((bundle.path / "report.json").read_text())["warnings"]


@pytest.mark.convert
def test_findings_are_warnings_of_the_conversion_and_stand_in_its_report(model, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    said = []
    bundle = edgekit.convert(
        model,
        tmp_path / "m.edgekit",
        precision="int8",
        data=noise,
        eval_data=(noise[:7], np.zeros(7, np.int64)),
        preprocess="unit",
        on_progress=lambda *news: said.append(news),
    )
    found = " | ".join(warnings_of(bundle))
    assert re.search("40 of 40 samples .* look like noise.* 40 samples .* 7 of 7 samples", found)
    assert "look like noise" in (bundle.path / "report.html").read_text()
    assert ("auditing the calibration set", 47, 47) in said


@pytest.mark.convert
def test_only_the_samples_that_calibrate_are_audited(model, tmp_path):
    frames, labels = make_set(120, seed=7, size=(16, 16))
    frames[60] = 0  # between two that are chosen
    choices = {"preprocess": "unit", "data": frames, "eval_data": (frames[60:], labels[60:] % 3)}
    bundle = edgekit.convert(
        model, tmp_path / "m.edgekit", precision="int8", calibration_samples=2, **choices
    )
    few, overlap = warnings_of(bundle)
    assert "2 samples of the array calibrate" in few
    assert "1 of 60 samples of the evaluation set" in overlap
    bundle = edgekit.convert(model, tmp_path / "f.edgekit", precision="fp32", **choices)
    assert warnings_of(bundle) == []


@pytest.mark.convert
def test_an_int8_tflite_has_its_ranges_and_no_set_is_audited(model, tmp_path):
    frames, _ = make_set(120, seed=7, size=(16, 16))
    bundle = edgekit.convert(
        model, tmp_path / "m.edgekit", precision="int8", data=frames, preprocess="unit"
    )
    assert warnings_of(bundle) == []
    again = edgekit.convert(
        bundle.path / "model.tflite",
        tmp_path / "again.edgekit",
        precision="int8",
        data=frames[:5],
        preprocess="unit",
    )
    assert warnings_of(again) == []
