"""Every example runs, in small."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_camera_loop(classifier_bundle):
    source = ("--source", "test://64x48@60", "--max-frames", "5")
    out = run(EXAMPLES / "camera_loop.py", classifier_bundle, *source)
    results = [line for line in out.splitlines() if " ms  " in line]
    assert len(results) == 5
    assert results[0].split()[-2] in ("red", "green", "blue", "white")


def test_any_callable():
    out = run(EXAMPLES / "any_callable.py", "--max-frames", "3", "--source", "test://64x48@60")
    assert out.count("brightness") == 3


@pytest.mark.convert
def test_classify_images(tmp_path):
    out = run(EXAMPLES / "classify_images.py", "--output", tmp_path / "c.edgekit")
    before, after = (float(word) for word in re.findall(r"([0-9.]+)%", out))
    assert before >= 95
    assert after >= before - 2
    assert out.count("picture ") == 5


@pytest.mark.convert
def test_classify_images_with_a_resnet(shared_data, tmp_path):
    cifar = shared_data / "cifar10_dev.npz"
    small = tmp_path / "set.npz"
    with np.load(cifar) as arrays:
        np.savez(small, **{k: arrays[k][:200] for k in arrays.files if k != "classes"})
    out = run(
        *(EXAMPLES / "classify_images.py", "--model", shared_data / "pretrainedResnet.h5"),
        *("--preprocess", "raw", "--calibration", f"{small}::x_calib,y_calib"),
        *("--evaluation", f"{small}::x_test,y_test", "--output", tmp_path / "r.edgekit"),
    )
    before, after = (float(word) for word in re.findall(r"([0-9.]+)%", out))
    assert before >= 80
    assert after >= before - 3


def membranes(folder, *options):
    places = ("--output", folder / "m.edgekit", "--picture", folder / "m.jpg")
    return run(EXAMPLES / "membranes.py", "--steps", "20", *places, *options)


@pytest.mark.convert
def test_membranes(tmp_path):
    out = membranes(tmp_path)
    before, after = (float(word) for word in re.findall(r"([0-9.]+)%", out))
    assert before >= 50
    assert after >= before - 2
    assert "a picture of (160, 160): probabilities (160, 160, 1)" in out
    assert (tmp_path / "m.jpg").stat().st_size > 5_000


@pytest.mark.convert
@pytest.mark.slow
def test_distillation(tmp_path):
    options = ("--samples", "40", "--epochs", "1", "--output", tmp_path / "small.edgekit")
    out = run(EXAMPLES / "distillation.py", *options)
    assert "student" in out and (tmp_path / "small.edgekit" / "bundle.json").is_file()


@pytest.mark.convert
@pytest.mark.slow
def test_quantization_aware(tmp_path):
    options = ("--samples", "32", "--epochs", "1", "--output", tmp_path / "aware.edgekit")
    out = run(EXAMPLES / "quantization_aware.py", *options)
    assert "int8           accuracy" in out
    assert (tmp_path / "aware.edgekit" / "bundle.json").is_file()


@pytest.mark.convert
@pytest.mark.slow
def test_membranes_of_a_microscope(shared_data, tmp_path):
    out = membranes(tmp_path, "--data", f"{shared_data / 'isbi_membrane_dev.npz'}::image,mask")
    assert "a picture of (512, 512): probabilities (512, 512, 1)" in out


@pytest.mark.convert
def test_keyword_spotting(tmp_path):
    out = run(EXAMPLES / "keyword_spotting.py", "--output", tmp_path / "words.edgekit")
    right = re.search(r"right: (.+)% in Keras, (.+)% as a stream", out)
    assert min(map(float, right.groups())) > 80, out
    said = out.rsplit(": ", 1)[1].strip()
    assert f"frame  20: {said}" in out


@pytest.mark.convert
@pytest.mark.slow
def test_distillation_and_training_for_int8_on_the_development_data(shared_data, tmp_path):
    teacher, cifar = shared_data / "pretrainedResnet.h5", shared_data / "cifar10_dev.npz"
    given = ("--preprocess", "raw", "--epochs", "1", "--output")
    data = ("--teacher", teacher, "--data", f"{cifar}::x_calib,y_calib")
    out = run(EXAMPLES / "distillation.py", *data, *given, tmp_path / "small.edgekit")
    assert "teacher   78,666 parameters" in out
    data = ("--model", teacher, "--data", cifar, "--samples", "200")
    out = run(EXAMPLES / "quantization_aware.py", *data, *given, tmp_path / "aware.edgekit")
    assert "int8           accuracy" in out


def test_every_example_has_a_test():
    """The training script's test is in tests/demo."""
    tested = (
        Path(__file__).read_text() + (EXAMPLES.parent / "tests/demo/test_frames.py").read_text()
    )
    for example in EXAMPLES.glob("*.py"):
        assert example.name in tested, f"no test runs {example.name}"


@pytest.mark.convert
def test_the_demo_does_the_whole_path(tmp_path):
    import cv2

    run("-m", "edgekit", "demo", "--output", tmp_path / "demo")
    found = {path.name for path in (tmp_path / "demo").iterdir()}
    assert found == {
        *("input.mp4", "annotated.mp4", "results.jsonl", "latency.html"),
        *("shapes.edgekit", "shapes.npz"),
    }
    video = cv2.VideoCapture(str(tmp_path / "demo" / "annotated.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 300
    assert len((tmp_path / "demo" / "results.jsonl").read_text().splitlines()) == 300
    assert "Latency of" in (tmp_path / "demo" / "latency.html").read_text()
