import json
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.errors import DataError, EnvironmentLacks, OutputError, UsageError
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.events import FrameDropped
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.run import run

RED = np.full((48, 64, 3), (0, 0, 255), np.uint8)
STAGES = {"capture", "preprocess", "infer", "postprocess"}


@pytest.fixture
def model(classifier_bundle):
    with edgekit.open(classifier_bundle, threads=1) as opened:
        yield opened


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_into_every_sink_and_its_account(model, tmp_path):
    sinks = [f"{tmp_path}/out.jsonl", f"{tmp_path}/out.mp4", f"{tmp_path}/pictures/"]
    results = []
    summary = run(model, [RED] * 12, sinks, max_frames=10, on_result=results.append)
    assert list(msgspec.to_builtins(summary)) == [
        "bundle",
        "backend",
        "source",
        "frames",
        "captured",
        "late",
        "dropped",
        "drops",
        "wall_s",
        "cpu_s",
        "fps",
        "cpu_ms_per_frame",
        "age_ms",
        "stages_ms",
        "sources",
        "sinks",
        "adapted",
    ]
    assert summary.bundle == str(model.bundle.path)
    assert (summary.backend, summary.source) == ("litert", "an iterable")
    assert (summary.frames, summary.dropped) == (10, 0)
    assert summary.fps == pytest.approx(10 / summary.wall_s)
    assert summary.cpu_ms_per_frame == pytest.approx(100 * summary.cpu_s)
    assert set(summary.stages_ms) == STAGES | {"sink"}
    assert summary.age_ms.max == max(r.age_ms for r in results)
    assert [line["frame_id"] for line in lines(tmp_path / "out.jsonl")] == list(range(10))
    assert {line["value"][0]["label"] for line in lines(tmp_path / "out.jsonl")} == {"red"}
    assert cv2.VideoCapture(sinks[1]).get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert len(list((tmp_path / "pictures").iterdir())) == 10


def test_pictures_of_several_sources_do_not_take_each_others_names(model, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), RED)
    summary = run(model, [str(tmp_path / "a"), str(tmp_path / "b")], [f"{tmp_path}/out/"])
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == [f"{source}-00000{frame}.jpg" for source in (0, 1) for frame in range(3)]
    assert summary.sinks[0].written == 6


def test_without_sinks_there_is_no_sink_stage(model):
    assert set(run(model, [RED]).stages_ms) == STAGES


def test_every_captured_frame_is_delivered_or_counted_as_dropped(model):
    events = []
    summary = run(
        model,
        "test://64x48@400",
        max_frames=20,
        on_event=events.append,
        on_result=lambda result: time.sleep(0.01),
    )
    drops = [event for event in events if isinstance(event, FrameDropped)]
    assert summary.frames == 20
    assert summary.dropped == len(drops) > 0
    assert max(event.frame_id for event in drops) <= summary.frames + summary.dropped


def test_the_source_in_the_account_has_no_password(model):
    with pytest.raises(EnvironmentLacks) as caught:
        run(model, "http://me:hidden@127.0.0.1:9/", options=StreamOptions(timeouts=Timeouts(1, 1)))
    assert "hidden" not in str(caught.value)


def test_undecodable_pictures_are_counted(model, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), RED)
    (tmp_path / "b.png").write_bytes(b"torn")
    summary = run(model, tmp_path)
    assert (summary.frames, summary.dropped) == (1, 1)


@pytest.mark.parametrize("source", [[], "broken"])
def test_a_source_without_a_frame_is_a_data_error_and_leaves_no_video(model, tmp_path, source):
    if source == "broken":
        (tmp_path / "a.png").write_bytes(b"torn")
        source = str(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"gave no frame|a\.png"):
        run(model, source, [f"{tmp_path}/out.mp4"])
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".*"))


def test_one_sink_that_fails_leaves_the_others_whole(model, tmp_path):
    folder = tmp_path / "pictures"

    def obstruct(result):
        if result.frame_id == 5:
            folder.rename(tmp_path / "moved")

    sinks = [f"{tmp_path}/out.mp4", f"{tmp_path}/out.jsonl", f"{folder}/"]
    with pytest.raises(OutputError, match="pictures"):
        run(model, [RED] * 10, sinks, on_result=obstruct)
    # The folder's thread may be some results behind when it finds it gone.
    written = len(lines(tmp_path / "out.jsonl"))
    assert 6 <= written <= 10
    assert cv2.VideoCapture(sinks[0]).get(cv2.CAP_PROP_FRAME_COUNT) == written
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("last", ["absent/out.jsonl", "display://"])
def test_a_sink_that_cannot_be_opened_ends_the_run_before_it_begins(
    model, tmp_path, monkeypatch, last
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    taken = []

    def frames():
        taken.append(1)
        yield RED

    with pytest.raises(EnvironmentLacks):
        run(model, frames(), ["out.mp4", last])
    assert not taken
    assert os.listdir() == []  # noqa: PTH208


def test_a_wrong_sink_is_told_before_the_source_is_opened(model):
    with pytest.raises(UsageError, match=r"`sink` 'out\.txt'"):
        run(model, "absent.mp4", ["out.txt"])


@pytest.mark.parametrize("source", ["test://64x48", "test://64x48@100"])
def test_ctrl_c_is_a_normal_end(model, tmp_path, source):
    def interrupt(result):
        if result.frame_id >= 3:
            raise KeyboardInterrupt

    sinks = [f"{tmp_path}/out.jsonl", f"{tmp_path}/out.mp4"]
    summary = run(model, source, sinks, on_result=interrupt)
    written = lines(tmp_path / "out.jsonl")
    assert 0 < len(written) <= summary.frames + 1
    video = cv2.VideoCapture(sinks[1]).get(cv2.CAP_PROP_FRAME_COUNT)
    assert video == summary.sinks[1].written > 0


def test_a_signal_before_the_first_frame_is_an_interruption(model):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(model, [], on_turn=lambda inlets: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_lets_the_result_in_hand_be_written(model, tmp_path):
    def signal_at_third(result):
        if result.frame_id == 3:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "out.jsonl"
    summary = run(model, "test://64x48", [str(path)], on_result=signal_at_third)
    assert len(lines(path)) == summary.frames == summary.captured == 4


def test_a_signal_ends_the_wait_for_a_pipes_reader(model, tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    before = signal.getsignal(signal.SIGTERM)

    def signal_once_it_is_heard():
        while signal.getsignal(signal.SIGTERM) is before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=signal_once_it_is_heard).start()
    with pytest.raises(KeyboardInterrupt):
        run(model, "test://64x48", [str(pipe)])
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # lets the thread that opens it go
    for thread in threading.enumerate():
        if thread.name == "edgekit-sink":
            thread.join()
    os.close(reader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_cleanly(classifier_bundle, tmp_path, number):
    sinks = ["--sink", "-", "--sink", f"{tmp_path}/out.mp4"]
    options = ["--source", "test://64x48@100", *sinks, "--json", f"{tmp_path}/run.json"]
    command = [sys.executable, "-m", "edgekit", "run", str(classifier_bundle), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(5):
            assert json.loads(process.stdout.readline())["value"]
        process.send_signal(number)
        # Not `communicate`, which knows nothing of the lines that `readline` has read ahead.
        rest, errors = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    summary = json.loads((tmp_path / "run.json").read_text())
    lines, video = summary["sinks"]  # with queues: on a busy machine each may have lost some
    assert lines["written"] == 5 + len(rest.splitlines())
    capture = cv2.VideoCapture(f"{tmp_path}/out.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == video["written"] > 0
    assert {sink["written"] + sink["dropped"] for sink in (lines, video)} == {summary["frames"]}
