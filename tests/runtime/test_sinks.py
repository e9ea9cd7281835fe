import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from edgekit.errors import DataError, EnvironmentLacks, OutputError, UsageError
from edgekit.runtime.postprocess import ClassScore
from edgekit.runtime.sinks import kind_of, open_sink
from edgekit.runtime.stream import Result

VALUE = (ClassScore(1, "zebra", 0.75),)


def result(number=0, size=(48, 64), value=VALUE, frame=None):
    if frame is None:
        frame = np.full((*size, 3), 100, np.uint8)
    return Result(number, 10**9 + number, 1.23456, value, frame, {"infer": 5})


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("out.jsonl", "jsonl"),
        ("OUT.NDJSON", "jsonl"),
        ("-", "jsonl"),
        ("jsonl://anything", "jsonl"),
        ("out.mp4", "video"),
        ("out.avi", "video"),
        ("out.mkv", "video"),
        ("out.mov", "video"),
        ("folder/", "images"),
        ("/tmp", "images"),
        ("images://folder", "images"),
        ("display://", "display"),
    ],
)
def test_the_uri_says_the_kind_of_sink(uri, kind):
    assert kind_of(uri) == kind


@pytest.mark.parametrize("uri", ["out.txt", "out", "", "mqtt://me:hidden@host/x"])
def test_an_unknown_sink_is_told_with_those_there_are(uri):
    with pytest.raises(UsageError, match=r"available: FILE\.jsonl.*display://") as caught:
        open_sink(uri)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["out.jsonl", "out.mp4", "folder/"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="cannot write"):
        open_sink(f"{tmp_path}/file/{name}")
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.parametrize("name", ["out.jsonl", "out.mp4", "folder/"])
def test_closing_twice_is_harmless(tmp_path, name):
    sink = open_sink(f"{tmp_path}/{name}")
    sink.write(result())
    sink.close()
    sink.close()


def test_json_lines_have_exactly_their_keys(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("of an older run\n" * 100)
    sink = open_sink(str(path))
    for number in range(3):
        sink.write(result(number))
        # Each line is there as soon as it is written.
        assert len(path.read_text().splitlines()) == number + 1
    sink.close()
    first, *_ = (json.loads(line) for line in path.read_text().splitlines())
    assert list(first) == ["frame_id", "captured_ns", "age_ms", "source", "late", "value"]
    assert first == {
        "frame_id": 0,
        "captured_ns": 10**9,
        "age_ms": 1.235,
        "source": "",
        "late": False,
        "value": [{"index": 1, "label": "zebra", "score": 0.75}],
    }


@pytest.mark.parametrize(
    "value", ['quote " and \n line', {"a": [1, None]}, np.arange(3), float("nan"), "Tür 门"]
)
def test_any_value_is_one_line(tmp_path, value):
    sink = open_sink(f"{tmp_path}/out.jsonl")
    sink.write(result(value=value))
    sink.close()
    (line,) = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert "value" in json.loads(line)


ENDLESS = """
import sys
import numpy as np
from edgekit.runtime.sinks import open_sink
from edgekit.runtime.stream import Result
sink = open_sink(sys.argv[1])
frame = np.zeros((48, 64, 3), np.uint8)
for number in range(10**9):
    sink.write(Result(number, number, 1.0, "x" * (number % 5000), frame, {}))
    if number == 200:
        print("running", flush=True)
"""


def test_a_killed_process_leaves_whole_lines_but_for_the_last(tmp_path):
    path = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGKILL)
    *lines, last = path.read_text().split("\n")
    # A kill reaches the kernel between two pages of a write, so the last line may be cut.
    assert len(last) < 6000
    numbers = [json.loads(line)["frame_id"] for line in lines]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 200


def rotated(path, count, start=0):
    sink = open_sink(f"{path}#rotate=1MB&keep=2")
    for number in range(start, start + count):
        sink.write(result(number, value="x" * 99_900))
    sink.close()


def numbers_in(path):
    return [json.loads(line)["frame_id"] for line in path.read_text().splitlines()]


def test_a_file_that_would_grow_too_large_is_put_aside(tmp_path):
    path = tmp_path / "out.jsonl"
    rotated(path, 35)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["out.jsonl", "out.jsonl.1", "out.jsonl.2"]
    files = [tmp_path / "out.jsonl.2", tmp_path / "out.jsonl.1", path]
    assert all(file.stat().st_size <= 1_000_000 for file in files)
    kept = [number for file in files for number in numbers_in(file)]
    assert kept == list(range(35 - len(kept), 35))
    assert len(kept) > 18


def test_a_rotated_file_is_continued_and_a_cut_line_stays_alone(tmp_path):
    path = tmp_path / "out.jsonl"
    rotated(path, 2)
    rotated(path, 1, start=2)
    assert numbers_in(path) == [0, 1, 2]
    path.write_text(path.read_text()[:-50])
    rotated(path, 1, start=3)
    *_, cut, last = path.read_text().splitlines()
    assert json.loads(last)["frame_id"] == 3
    assert not cut.endswith("}")


def test_a_pipe_is_written_to_and_cannot_be_rotated(tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="only a file can be rotated"):
        open_sink(f"{pipe}#rotate=1MB")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_sink(str(pipe))
    sink.write(result())
    sink.close()
    assert json.loads(os.read(reader, 65536))["frame_id"] == 0
    os.close(reader)


def test_a_name_may_hold_the_sign_of_options(tmp_path):
    sink = open_sink(f"{tmp_path}/door#2.jsonl")
    sink.write(result())
    sink.close()
    assert numbers_in(tmp_path / "door#2.jsonl") == [0]


@pytest.mark.parametrize("options", ["rotate=0MB", "rotate=5", "keep=3", "rotate=1MB&keep=0", "x"])
def test_options_of_a_file_that_cannot_be_read(tmp_path, options):
    with pytest.raises(UsageError, match="rotate=100MB"):
        open_sink(f"{tmp_path}/out.jsonl#{options}")
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, 100_001))
"""


def test_a_disk_that_is_full_is_told_and_leaves_whole_lines(tmp_path):
    path = tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL + ENDLESS, path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("edgekit.errors.OutputError: cannot")
    text = path.read_text()
    assert 90_000 < len(text) <= 100_001
    assert text.endswith("\n")
    assert all(json.loads(line) for line in text.splitlines())


def test_standard_output_full_or_closed_is_told():
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", ENDLESS, "-"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert "OutputError: cannot write -: No space left" in done.stderr


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "mov", "MP4"])
@pytest.mark.parametrize("rate_hz", [None, 7.5, 29.97, 60])
def test_a_video_has_a_frame_a_result_at_the_sources_rate(tmp_path, suffix, rate_hz):
    path = tmp_path / f"out.{suffix}"
    sink = open_sink(str(path), rate_hz)
    for number in range(11):
        sink.write(result(number))
        assert not path.exists()  # nobody opens half a video
    sink.close()
    frames, found_hz = read_video(path)
    assert len(frames) == 11
    assert found_hz == pytest.approx(rate_hz or 30, rel=0.01)
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
@pytest.mark.parametrize("size", [(48, 64), (47, 65), (47, 64), (48, 65), (240, 321)], ids=str)
def test_frames_of_odd_sizes_and_what_is_drawn_on_them(tmp_path, size, suffix):
    path = tmp_path / f"out.{suffix}"
    sink = open_sink(str(path))
    for number in range(3):
        sink.write(result(number, size))
    sink.close()
    frames, _ = read_video(path)
    assert len(frames) == 3
    for frame in frames:
        assert frame.shape[:2] == (size[0] - size[0] % 2, size[1] - size[1] % 2)
        assert np.abs(frame[:20, :30].astype(int) - 100).max() > 50  # the text
        np.testing.assert_allclose(frame[30:200].astype(int), 100, atol=12)  # the picture


def test_frames_that_change_their_size_or_form_fit_into_the_video(tmp_path):
    sink = open_sink(f"{tmp_path}/out.mp4")
    sink.write(result(0, (48, 64)))
    sink.write(result(1, (100, 30)))
    sink.write(result(2, frame=np.zeros((48, 64), np.uint8)))
    sink.write(result(3, frame=np.zeros((48, 64, 4), np.uint8)))
    sink.close()
    frames, _ = read_video(tmp_path / "out.mp4")
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4


@pytest.mark.parametrize("old", [None, b"of an older run"])
def test_a_video_without_frames_is_no_file_and_leaves_the_old_one(tmp_path, old):
    path = tmp_path / "out.mp4"
    if old:
        path.write_bytes(old)
    open_sink(str(path)).close()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == ({path: old} if old else {})


@pytest.mark.parametrize("frame", [np.zeros((28, 28), np.float32), np.zeros((1, 1, 3), np.uint8)])
def test_a_video_that_cannot_be_made_leaves_nothing(tmp_path, frame):
    sink = open_sink(f"{tmp_path}/out.mp4")
    with pytest.raises((DataError, OutputError)) as caught:
        sink.write(result(frame=frame))
    assert "\n" not in str(caught.value)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_video_on_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    code = FULL.replace("100_001", "60_000") + ENDLESS.replace("10**9", "400").replace(
        "np.zeros((48, 64, 3), np.uint8)",
        "np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)",
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nsink.close()", tmp_path / "out.mp4"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "OutputError: cannot write" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_images_are_named_by_frame_and_drawn_on(tmp_path):
    sink = open_sink(f"{tmp_path}/new/folder/")
    for number in (0, 7, 1234567):
        sink.write(result(number))
    sink.close()
    folder = tmp_path / "new/folder"
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["000000.jpg", "000007.jpg", "1234567.jpg"]
    picture = cv2.imread(str(folder / "000007.jpg"))
    assert picture.shape == (48, 64, 3)
    assert np.abs(picture[:20].astype(int) - 100).max() > 50


def test_a_window_without_a_display_is_told(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(EnvironmentLacks, match=r"neither DISPLAY nor .*--sink out\.mp4"):
        open_sink("display://")
