"""Scenarios on a clock of their own: a model whose runs pass its time, and nothing sleeps."""

import itertools
import socket
import threading
import time
from contextlib import ExitStack

import cv2
import numpy as np
import pytest

import edgekit
from edgekit import plugins
from edgekit.errors import SourceError, UsageError
from edgekit.profiling.recording import Recording, Until
from edgekit.profiling.scenarios import Work


class Timed:
    """A model that takes 1, 6 and 1 ms, or longer in some runs, of a clock that it moves."""

    def __init__(self, extra_ms=()):
        self.now_ns = 0
        self.backend = object()
        self._extra_ms = itertools.chain(extra_ms, itertools.repeat(0))

    def _pass(self, ms):
        self.now_ns += int(1e6 * ms)

    def preprocess(self, frame):
        self._pass(1)

    def infer(self):
        self._pass(6 + next(self._extra_ms))
        return []

    def postprocess(self, frame, outputs):
        self._pass(1)


def measured(name, model, until, **options):
    module = plugins.load("scenario", name)
    recording = Recording(module.STAGES)
    work = Work(
        model=model,
        frames=itertools.repeat(np.zeros(1)),
        until=until,
        clock_ns=lambda: model.now_ns,
        cpu_ns=lambda: model.now_ns // 2,
        sleep=lambda seconds: model._pass(1000 * seconds),
        **options,
    )
    module.measure(work, recording)
    return recording


def test_single_stream_runs_one_frame_after_the_other():
    recording = measured("single_stream", Timed(), Until(None, 0.4))
    assert recording.count == 50
    assert recording.latencies_ms.tolist() == [8] * 50
    assert [recording.stage_ms(s)[0] for s in recording.stages] == [1, 6, 1]
    assert recording.cpu_mean_ms == 4


def test_multi_stream_takes_until_the_last_camera_is_served():
    recording = measured("multi_stream", Timed(), Until(10, None), streams=4)
    assert recording.latencies_ms.tolist() == [32] * 10
    assert recording.stage_ms("infer").tolist() == [24] * 10


def test_paced_keeps_to_the_timetable():
    recording = measured("paced", Timed(), Until(20, None), rate_hz=50)
    assert np.diff(recording.starts_s) == pytest.approx(np.full(19, 0.02))
    assert recording.ages_ms.tolist() == [8] * 20
    assert recording.drops == {}


def test_paced_does_not_leave_out_what_a_slow_frame_keeps_waiting():
    """A frame of 28 ms: the next one was due 8 ms before its end, and is 16 ms old."""
    recording = measured("paced", Timed([20]), Until(4, None), rate_hz=50)
    assert recording.latencies_ms.tolist() == [28, 8, 8, 8]
    assert recording.ages_ms.tolist() == [28, 16, 8, 8]
    assert recording.drops == {}


def test_paced_drops_and_counts_what_comes_while_the_model_is_busy():
    """A frame of 70 ms at 20 ms: those of 20 and 40 ms have no turn, that of 60 ms has."""
    recording = measured("paced", Timed([62]), Until(3, None), rate_hz=50)
    assert recording.drops == {"late": 2}
    assert recording.ages_ms.tolist() == [70, 18, 8]


@pytest.mark.parametrize(("extra_ms", "wall_s"), [([], 0.08), ([0, 0, 0, 22], 0.09)])
def test_paced_makes_no_more_frames_a_second_than_come(extra_ms, wall_s):
    recording = measured("paced", Timed(extra_ms), Until(4, None), rate_hz=50)
    assert recording.wall_s == pytest.approx(wall_s)


@pytest.mark.parametrize("scenario", ["multi-stream", "offline", "paced"])
def test_each_scenario_measures_a_bundle(classifier_bundle, scenario):
    found = edgekit.profile(classifier_bundle, scenario=scenario, runs=30, rate_hz=500)
    (only,) = found.profiles
    assert only.scenario == scenario
    assert only.runs == 30
    assert (only.streams == 8) == (scenario == "multi-stream")
    assert (only.rate_hz == 500) == (scenario == "paced") == (only.age_ms is not None)
    assert only.throughput_fps > 0
    assert only.cpu_ms > 0


def test_of_runs_and_duration_what_comes_first_ends_it(classifier_bundle):
    found = edgekit.profile(classifier_bundle, runs=1 << 40, duration_s=0.1, threads=1)
    assert 1 <= found.profiles[0].runs < 1 << 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scenario": "server"}, "offline, paced"),
        ({"scenario": "camera"}, "without a source"),
        ({"scenario": "paced", "source": "test://64x48"}, "with a source"),
        ({"scenario": "paced", "rate_hz": 0}, "`rate`"),
        ({"scenario": "paced", "rate_hz": float("nan")}, "`rate`"),
        ({"streams": 0}, "`streams`"),
        ({"within": 0}, "`within`"),
        ({"processes": 0}, "`processes`"),
        ({"scenario": "paced", "rate_hz": 1e-9}, "`rate`"),
        ({"processes": 2, "source": iter([])}, "`processes` need"),
        ({"threads": [1, 2], "source": iter([])}, "several `backend` or `threads` need"),
        ({"threads": [1, 2], "source": "test://64x48", "sinks": ["a.jsonl"]}, "write over"),
        ({"backend": []}, "`backend` must name"),
    ],
)
def test_settings_that_make_no_sense_are_refused(classifier_bundle, wrong, message):
    with pytest.raises(UsageError, match=message):
        edgekit.profile(classifier_bundle, **wrong)


def test_side_by_side_no_more_is_run_than_was_asked_for(classifier_bundle, monkeypatch):
    monkeypatch.setattr(plugins.load("scenario", "offline"), "_copies", lambda model: 4)
    (only,) = edgekit.profile(classifier_bundle, scenario="offline", runs=21).profiles
    assert only.runs == 21


def test_frames_that_had_no_turn_are_told_once(classifier_bundle):
    with edgekit.open(classifier_bundle) as model:
        infer = type(model).infer

        def slow(self):
            time.sleep(0.004)
            return infer(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model), "infer", slow)
            (only,) = edgekit.profile(model, scenario="paced", rate_hz=1000, runs=12).profiles
    (told,) = [f for f in only.findings if f.code == "rate-not-kept"]
    dropped = only.drops["late"]
    assert told.evidence["dropped_percent"] == pytest.approx(100 * dropped / (dropped + 12))


def test_a_source_that_falls_silent_is_not_waited_for(classifier_bundle, monkeypatch):
    """Its server holds the connection and sends no more; `run` would wait for it for ever."""
    monkeypatch.setattr(plugins.load("scenario", "camera"), "_SILENT_S", 0.3)
    picture = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"
    part = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)

    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as held:

        def serve():
            connection = held.enter_context(listening.accept()[0])
            connection.recv(4096)
            connection.sendall(head + 3 * (part + picture + b"\r\n"))

        server = threading.Thread(target=serve)
        server.start()
        source = f"http://someone:secret@127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(SourceError, match="gave nothing for 0.3 s") as caught:
            edgekit.profile(classifier_bundle, source=source, duration_s=60)
        server.join()
    assert "secret" not in str(caught.value)


def test_a_model_that_fails_side_by_side_fails_the_measurement(classifier_bundle, monkeypatch):
    module = plugins.load("scenario", "offline")
    monkeypatch.setattr(module, "_copies", lambda model: 3)
    runs = itertools.count()
    with edgekit.open(classifier_bundle) as model:
        infer = type(model).infer

        def failing(self):
            if next(runs) > 40:
                raise ValueError("broken")
            return infer(self)

        monkeypatch.setattr(type(model), "infer", failing)
        with pytest.raises(ValueError, match="broken"):
            edgekit.profile(model, scenario="offline", duration_s=60)
