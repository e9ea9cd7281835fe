"""`edgekit run`: what is asked for is done, and what cannot be is one line."""

import json

import cv2
import numpy as np
import pytest

from edgekit.cli import main


@pytest.fixture
def run(classifier_bundle, tmp_path, capsys):
    def run(*options):
        out = tmp_path / "run.json"
        code = main(["run", str(classifier_bundle), *map(str, options), "--json", str(out)])
        captured = capsys.readouterr()
        return code, json.loads(out.read_text()) if code == 0 else captured.err, captured.out

    return run


def write_video(path, color, frames=6, size=(48, 64)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, size[::-1])
    for _ in range(frames):
        writer.write(np.full((*size, 3), color, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--policy", "newest"], "`policy` must be one of every, latest, bounded:N; got 'newest'"),
        (["--policy", "bounded:0"], "expected bounded:N with N from 1 to 1024"),
        (["--policy", "bounded:x"], "expected bounded:N with N from 1 to 1024"),
        (["--max-age", "100"], "`max_age` must be a time with its unit, like 100ms"),
        (["--max-age", "0ms"], "`max_age` must be above 0; got 0"),
        (["--late", "keep"], "`late` must be one of mark, drop; got 'keep'"),
        (["--max-rate", "0"], "`max_rate` must be above 0; got 0"),
        (["--max-rate", "nan"], "`max_rate` must be above 0; got nan"),
        (["--max-rate", "1e-300"], "(one a day); got 1e-300"),
        (["--sink", "video://"], "`sink` 'video://' names no place"),
        (["--sink", "images://"], "`sink` 'images://' names no place"),
        (["--every-nth", "0"], "`every_nth` must be at least 1; got 0"),
        (["--roi", "1,2,3"], "`roi` must be X,Y,WIDTH,HEIGHT"),
        (["--roi", "0,0,0,5"], "`roi` must be X,Y,WIDTH,HEIGHT"),
        (["--roi", "0,0,-4,5"], "`roi` must be X,Y,WIDTH,HEIGHT"),
        (["--roi", "60,40,10,10"], "does not lie within the frames, which are 64x48"),
        (["--max-frames", "0"], "`max_frames` must be at least 1; got 0"),
    ],
)
def test_wrong_options_are_one_line_and_2(run, options, says):
    code, error, _ = run("--source", "test://64x48", "--max-frames", 3, *options)
    assert code == 2
    assert says in error
    assert error.count("\n") == 1


def test_two_files_share_the_model_and_say_which_is_which(run, tmp_path):
    red = write_video(tmp_path / "red.avi", (0, 0, 255))
    blue = write_video(tmp_path / "blue.avi", (255, 0, 0), frames=4)
    lines = tmp_path / "out.jsonl"
    code, summary, table = run("--source", red, "--source", blue, "--sink", lines)
    assert code == 0
    assert [s["delivered"] for s in summary["sources"]] == [6, 4]
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {(line["source"], line["value"][0]["label"]) for line in found} == {
        (str(red), "red"),
        (str(blue), "blue"),
    }
    assert [line["source"] for line in found][:4] == [str(red), str(blue)] * 2
    assert f"from {red}" in table


def test_two_files_of_which_one_is_missing_is_2(run, tmp_path):
    red = write_video(tmp_path / "red.avi", (0, 0, 255))
    code, error, _ = run("--source", red, "--source", tmp_path / "absent.avi")
    assert (code, error) == (2, f"edgekit: no such video: {tmp_path}/absent.avi\n")


def test_the_region_is_what_the_model_sees_and_pictures_are_whole(run, tmp_path):
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[8:40, 16:48] = (0, 255, 0)
    cv2.imwrite(str(tmp_path / "in.png"), frame)
    sinks = ["--sink", tmp_path / "out.jsonl", "--sink", f"{tmp_path}/out/"]
    code, *_ = run("--source", tmp_path / "in.png", "--roi", "16,8,32,32", *sinks)
    assert code == 0
    (line,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert line["value"][0]["label"] == "green"
    assert cv2.imread(f"{tmp_path}/out/000000.jpg").shape == (48, 64, 3)


def test_every_nth_of_a_file_is_in_the_account(run, tmp_path):
    video = write_video(tmp_path / "red.avi", (0, 0, 255), frames=10)
    code, summary, table = run("--source", video, "--every-nth", 4)
    assert code == 0
    assert (summary["captured"], summary["frames"]) == (10, 3)
    assert summary["drops"] == {"every_nth": 7}
    assert "dropped: every nth" in table


def test_results_older_than_the_budget_are_told(run, tmp_path):
    code, summary, table = run(
        "--source", "test://64x48@100", "--max-age", "0.000001ms", "--max-frames", 5
    )
    assert code == 0
    assert summary["late"] == summary["frames"] == 5
    assert "delivered late" in table


def test_a_budget_that_nothing_meets_is_told(run):
    code, error, _ = run("--source", "test://64x48", "--max-frames", 5, "--max-age", "0.5s")
    assert code == 0, error


def test_a_sink_that_dies_on_a_camera_is_3_and_the_others_are_whole(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3, 400):  # a picture cannot take the place of a folder
        (folder / f"{number:06}.jpg").mkdir()
    options = ["--max-frames", 40, "--sink", f"{folder}/", "--sink", tmp_path / "out.jsonl"]
    code, error, _ = run("--source", "test://64x48@50", *options)
    assert code == 3
    assert "not all results were kept" in error
    assert "the others go on" in error
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40
