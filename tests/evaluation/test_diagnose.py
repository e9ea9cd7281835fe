"""`edgekit diagnose` names planted faults, and accuses nobody who is right."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edgekit.bundle import Bundle, read_bundle
from edgekit.data import load_data
from edgekit.errors import DataError
from edgekit.evaluation.diagnose import diagnose
from edgekit.evaluation.evaluate import evaluate
from edgekit.runtime.model import open_model
from edgekit.specs import Preprocess


def wide(pictures):
    """Stretch pictures to twice their width: what a model wants stretched back."""
    return np.array([cv2.resize(p, (2 * p.shape[1], p.shape[0])) for p in pictures])


def framed(pictures):
    """Put other pictures at both sides: what a model wants cut off."""
    side = pictures.shape[2] // 2
    others = np.roll(pictures, 1, axis=0)
    return np.concatenate([others[:, :, :side], pictures, others[:, :, side:]], axis=2)


def noisy(pictures):
    """Four times the size, with noise that only a kernel which averages takes away."""
    random = np.random.default_rng(0)
    large = pictures[:300].repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(large + random.normal(0, 60, large.shape), 0, 255).astype(np.uint8)


def as_they_are(pictures):
    return pictures


# What the bundle declares beside the truth, what is done to the pictures, and what is to be named.
# The truth is `signed` for the demo's MobileNet, `raw` for ResNet-8.
FAULTS = {
    "none": ("", as_they_are, set()),
    "channels swapped": ("color=bgr", as_they_are, {"color"}),
    "other range": ("scale=1/255,mean=0.5", as_they_are, {"values"}),
    "0..1": ("scale=1/255,mean=0", as_they_are, {"values"}),
    "mean and std of ImageNet": (
        "scale=1/255,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
        as_they_are,
        {"values"},
    ),
    "scaled twice": ("scale=2/65025,mean=1", as_they_are, {"values"}),
    "mean and swapped": (
        "scale=1,mean=103.939:116.779:123.68,color=bgr",
        as_they_are,
        {"values", "color"},
    ),
    "cut, not stretched": ("resize=center_crop", wide, {"resize"}),
    "letterboxed, not stretched": ("resize=letterbox", wide, {"resize"}),
    "stretched, not cut": ("resize=stretch", framed, {"resize"}),
    "classes shifted": ("", as_they_are, {"labels"}),
    "kernel": ("interpolation=nearest", noisy, {"interpolation"}),
}
# A shape is a shape in any colour.
DEMO_FAULTS = {
    **{name: (*fault[:2], fault[2] - {"color"}) for name, fault in FAULTS.items()},
    "scaling missing": ("scale=1,mean=0", as_they_are, {"values"}),
}


def declaring(bundle, preprocess):
    """Return `bundle` with another preprocess in its manifest, as if by mistake."""
    size, layout = bundle.manifest.preprocess.size, bundle.manifest.preprocess.layout
    declared = msgspec.structs.replace(Preprocess.parse(preprocess), size=size, layout=layout)
    manifest = msgspec.structs.replace(bundle.manifest, preprocess=declared)
    return Bundle(bundle.path, manifest, bundle.labels)


def diagnosis(bundle, truth, name, pictures, labels):
    declared, change, _ = DEMO_FAULTS[name]
    if name == "classes shifted":
        labels = (labels + 1) % (labels.max() + 1)
    text = ",".join(filter(None, (truth, declared)))
    with open_model(declaring(bundle, text), check=False) as model:
        changed = change(pictures)
        return diagnose(model, load_data((changed, labels[: len(changed)])))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return the demo's MobileNet as an fp32 bundle, and labelled pictures of its size."""
    import edgekit
    from edgekit.demo import frames
    from edgekit.demo.frames import make_set

    folder = tmp_path_factory.mktemp("demo")
    model = Path(frames.__file__).with_name("model.keras")
    edgekit.convert(model, folder / "demo.edgekit", preprocess="signed", precision="fp32")
    return read_bundle(folder / "demo.edgekit"), *make_set(800, 7, (96, 96))


@pytest.mark.convert
@pytest.mark.parametrize("name", DEMO_FAULTS)
def test_planted_faults_of_a_mobilenet_are_named(demo, name):
    bundle, pictures, labels = demo
    found = diagnosis(bundle, "signed", name, pictures, labels)
    print(found.faults, found.declared, found.found)
    assert {fault.axis for fault in found.faults} == DEMO_FAULTS[name][2]


@pytest.fixture(scope="module")
def resnet(shared_data, tmp_path_factory):
    """Return MLPerf Tiny's ResNet-8 as an fp32 bundle, and labelled pictures."""
    import edgekit

    out = tmp_path_factory.mktemp("resnet") / "r8.edgekit"
    edgekit.convert(shared_data / "pretrainedResnet.h5", out, preprocess="raw", precision="fp32")
    data = np.load(shared_data / "cifar10_dev.npz")
    return read_bundle(out), data["x_test"][:600], data["y_test"][:600]


@pytest.mark.convert
@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_of_resnet_are_named(resnet, name):
    bundle, pictures, labels = resnet
    found = diagnosis(bundle, "raw", name, pictures, labels)
    print(found.faults, found.declared, found.found)
    assert {fault.axis for fault in found.faults} == FAULTS[name][2]


def colored(n=80):
    """Return pictures of one colour and its class, as tests/assets' classifier tells them."""
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    labels = np.arange(n) % 4
    return np.broadcast_to(colors[labels][:, None, None], (n, 16, 16, 3)), labels


def test_an_int8_model_says_which_values_it_cannot_try(classifier_bundle):
    pictures, labels = colored()
    with open_model(classifier_bundle) as model:
        found = diagnose(model, load_data((pictures, labels)))
    assert found.faults == ()
    untold = next(text for text in found.untold if "int8 input" in text)
    assert "0..1" in untold
    assert "--model" in untold


def test_a_segmentation_is_diagnosed_by_its_pixels(segmenter_bundle):
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[:, 8:, 0] = 220  # the right half is red
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 8:] = 1
    swapped = np.array([frame[..., ::-1]] * 40)
    with open_model(segmenter_bundle) as model:
        right = diagnose(model, load_data((np.array([frame] * 40), np.array([mask] * 40))))
        wrong = diagnose(model, load_data((swapped, np.array([mask] * 40))))
    assert right.faults == ()
    assert [fault.axis for fault in wrong.faults] == ["color"]


def test_a_bundle_on_tiles_is_tried_on_tiles(segmenter_bundle):
    """Figures are those of `evaluate`, not those of the upper left tile spread over the frame."""
    frame = np.zeros((24, 40, 3), np.uint8)
    frame[12:, 20:, 0] = 220
    mask = np.zeros((24, 40), np.uint8)
    mask[12:, 20:] = 1
    data = load_data((np.array([frame] * 8), np.array([mask] * 8)))
    bundle = read_bundle(segmenter_bundle)
    plain = msgspec.structs.replace(bundle.manifest.preprocess, resize="tile", overlap=0)
    manifest = msgspec.structs.replace(bundle.manifest, preprocess=plain)
    with open_model(Bundle(bundle.path, manifest, bundle.labels), check=False) as model:
        found = diagnose(model, data)
        assert found.declared.metric == pytest.approx(evaluate(model, data).metrics[found.metric])
    assert found.declared.metric > 0.9
    assert any("on tiles alone" in text for text in found.untold)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 16, 16, 3), np.float32), np.zeros(4, int), "float32 arrays"),
        (np.zeros((4, 16, 16, 3), np.uint8), None, "has no labels"),
        (np.zeros((4, 16, 16, 3), np.uint8), np.full(4, 9), "the model has 4 classes"),
        (np.zeros((4, 16, 16, 3), np.uint8), np.zeros((4, 2)), "class indices"),
    ],
)
def test_a_set_that_cannot_serve_is_refused(classifier_bundle, x, y, message):
    data = load_data(x if y is None else (x, y))
    with open_model(classifier_bundle) as model, pytest.raises(DataError, match=message):
        diagnose(model, data)


def test_one_sample_names_nothing(classifier_bundle):
    pictures, labels = colored(1)
    with open_model(classifier_bundle) as model:
        assert diagnose(model, load_data((pictures[..., ::-1], labels))).faults == ()
