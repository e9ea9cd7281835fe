"""Real models on real data, where the development data are at hand."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.convert


@pytest.fixture(scope="module")
def resnet_bundle(shared_data, tmp_path_factory):
    """Convert MLPerf Tiny's ResNet-8 to int8 by the command line, and return bundle and figures."""
    folder = tmp_path_factory.mktemp("resnet")
    cifar = shared_data / "cifar10_dev.npz"
    result = subprocess.run(
        [
            *(sys.executable, "-m", "edgekit", "convert", shared_data / "pretrainedResnet.h5"),
            *("-o", folder / "r8.edgekit", "--precision", "int8"),
            *("--data", f"{cifar}::x_calib,y_calib", "--eval-data", f"{cifar}::x_test,y_test"),
            *("--preprocess", "raw", "--max-drop", "0.5%", "--json", "-"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder / "r8.edgekit", json.loads(result.stdout)


def test_resnet8_int8_is_small_and_within_half_a_point(resnet_bundle):
    _, figures = resnet_bundle
    assert figures["size_bytes"] <= 100_000
    assert figures["accuracy"]["source"] == 0.8645
    assert abs(figures["accuracy"]["converted"] - 0.8645) <= 0.005
    assert figures["fallbacks"] == []


@pytest.mark.parametrize(
    ("video", "frames"),
    [("photos_pan_640x480_30fps.mp4", 300), ("photos_handheld_1280x720_30fps.mp4", 360)],
)
def test_it_runs_on_video_without_tensorflow(resnet_bundle, shared_data, tmp_path, video, frames):
    bundle, _ = resnet_bundle
    script = (
        "import sys; from edgekit.cli import main; code = main(sys.argv[1:]); "
        "assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    result = subprocess.run(
        [
            *(sys.executable, "-c", script, "run", bundle, "--source", shared_data / video),
            *("--sink", tmp_path / "out.jsonl", "--sink", tmp_path / "out.mp4", "--json", "-"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["frames"] == frames
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["frame_id"] for line in lines] == list(range(frames))
    names = {line["value"][0]["label"] for line in lines}
    assert names <= {
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    }
    assert (tmp_path / "out.mp4").stat().st_size > 100_000
