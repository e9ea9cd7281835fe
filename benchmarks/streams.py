"""Age of frames of real streams under overload, and what happens when their sender stalls.

Ours: `edgekit.stream` on 30 fps streams over loopback (h264 in MPEG-TS over TCP, MJPEG over HTTP)
with a model that takes 60 ms. Age is counted from the drawing of a frame by the sender, whose time
travels in the picture, to the model's result: the encoder counts too.
Peer: the loop of the tutorials: `VideoCapture.read`, then the model, after 10 s of it. For the CPU
time of MJPEG: FFMPEG through OpenCV, with our own options.

It must show: a p99 of the age of at most the model's time and 2 frame periods for MJPEG, 5 for
h264; 10 times below the peer's; the same after 5 minutes (--full). A stalled sender is noticed
within the time-out and 0.2 s, and frames come again within 1 s of a sender's return with another
resolution. A frame of MJPEG that is dropped costs a fifth of FFMPEG's.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import edgekit
from benchmarks._measure import Effort, Row, Spread, ratio
from benchmarks._streams import KINDS, RATE_HZ, Sender
from edgekit.errors import SourceError
from edgekit.runtime.camera import Camera, Timeouts, http
from edgekit.runtime.camera._opencv import NetworkCamera
from edgekit.runtime.events import Event, SourceLost
from edgekit.runtime.timestamp import read_timestamp

_MODEL_S = 0.06
_PERIODS = {"mjpeg": 2, "h264": 5}
_TIMEOUTS = Timeouts(open_s=10.0, read_s=1.0)
_NAMES = {"mjpeg": "MJPEG over HTTP", "h264": "h264 over TCP"}


def measure(effort: Effort) -> list[Row]:
    if shutil.which("ffmpeg") is None:
        print("streams needs ffmpeg, not installed: apt-get install ffmpeg")
        return []
    cv2.setNumThreads(1)
    rounds, seconds = {"tiny": (1, 1.5), "normal": (3, 12.0), "full": (5, 12.0)}[effort]
    rows: list[Row] = []
    for kind in KINDS:
        rows += _ages(kind, rounds, seconds)
        if effort == "full":
            rows.append(_flatness(kind, 300.0))
        rows += _faults(kind, rounds)
    return rows + _costs(rounds, frames=5 if effort == "tiny" else 30)


def _costs(rounds: int, frames: int) -> list[Row]:
    """Compare our reader of MJPEG with FFMPEG's: CPU time of frames that are dropped, and kept."""
    readers: tuple[Callable[[str, Timeouts], Camera], ...] = (NetworkCamera, http.Camera)
    seconds = np.empty((len(readers), 2, rounds, 1))
    with Sender("mjpeg", "1280x720") as sender:
        for turn in range(rounds):
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                camera = _patiently(lambda i=index: readers[i](sender.uri, _TIMEOUTS))
                for kept in (0, 1):
                    started_s = time.process_time()
                    for _ in range(frames):
                        camera.grab()
                        if kept:
                            camera.retrieve()
                    seconds[index, kept, turn] = (time.process_time() - started_s) / frames
                camera.close()
    dropped, kept_ones = (ratio(seconds[0, kept], seconds[1, kept]) for kept in (0, 1))
    return [
        Row("MJPEG, 1280x720: CPU of a dropped frame, FFMPEG / ours", dropped, at_least=5.0),
        Row("MJPEG, 1280x720: CPU of a kept frame, FFMPEG / ours", kept_ones),
    ]


def _ages(kind: str, rounds: int, seconds: float) -> list[Row]:
    """Compare the ages of ours and the peer's, one after the other, who begins in turns."""
    ours: list[NDArray[np.float64]] = []
    peers: list[NDArray[np.float64]] = []
    for turn in range(rounds):
        both = [(ours, _our_ages), (peers, _peers_ages)]
        for ages, run in both if turn % 2 == 0 else both[::-1]:
            with Sender(kind) as sender:
                ages.append(run(sender.uri, seconds))
    at_the_end = (np.array([[_at_the_end(a, seconds)] for a in runs]) for runs in (peers, ours))
    with Sender(kind) as sender:
        bare = [_our_ages(sender.uri, min(seconds, 5.0), model_s=0.0)]
    limit_ms = 1000 * (_MODEL_S + _PERIODS[kind] / RATE_HZ)
    name = _NAMES[kind]
    return [
        Row(f"{name}: p99 of the age", _percentile(ours, 99), "ms", at_most=round(limit_ms)),
        Row(f"{name}: median of the age", _percentile(ours, 50), "ms"),
        Row(
            f"{name}: the same without a model (encoder, way, decoder)", _percentile(bare, 50), "ms"
        ),
        *_whole_frames(kind, seconds),
        Row(
            f"{name}: age of the naive loop / ours, at the end of {seconds:g} s",
            ratio(*at_the_end),
            at_least=10.0,
        ),
    ]


def _whole_frames(kind: str, seconds: float) -> list[Row]:
    if kind != "h264":
        return []
    with Sender(kind) as sender:
        ages = [_our_ages(f"{sender.uri}#frames=whole", min(seconds, 5.0))]
    return [Row(f"{_NAMES[kind]}: median of the age, frames=whole", _percentile(ages, 50), "ms")]


def _flatness(kind: str, seconds: float) -> Row:
    with Sender(kind) as sender:
        ages = _our_ages(sender.uri, seconds)[:, 1]
    fifth = len(ages) // 5
    value = Spread.of(np.array([np.median(ages[-fifth:]) / np.median(ages[:fifth])]))
    return Row(f"{_NAMES[kind]}: age in the last / in the first of 5 minutes", value, at_most=1.2)


def _faults(kind: str, rounds: int) -> list[Row]:
    noticed_ms: list[float] = []
    again_ms: list[float] = []
    for _ in range(rounds):
        with Sender(kind, "640x480") as sender:
            late, again = _freeze_and_return(sender)
        noticed_ms.append(late)
        again_ms.append(again)
    name = _NAMES[kind]
    return [
        Row(
            f"{name}: a frozen sender is noticed, after the time-out of 1 s",
            Spread.of(np.array(noticed_ms)),
            "ms",
            at_most=200.0,
        ),
        Row(
            f"{name}: frames again, of another size, after the sender's return",
            Spread.of(np.array(again_ms)),
            "ms",
            at_most=1000.0,
        ),
    ]


def _freeze_and_return(sender: Sender) -> tuple[float, float]:
    """Return how late the stop was noticed and frames came again, in ms."""
    lost = threading.Event()
    seen: dict[str, int] = {}

    def on_event(event: Event) -> None:
        if isinstance(event, SourceLost) and not lost.is_set():
            seen["lost"] = event.at_ns
            lost.set()

    def bring_back() -> None:
        lost.wait()
        sender.stop()
        seen["returned"] = sender.start("320x240")

    helper = threading.Thread(target=bring_back, daemon=True)
    with closing(_opened(sender.uri, lambda frame: frame.shape[1], on_event)) as results:
        for _ in range(10):
            last = next(results)
        sender.signal(signal.SIGSTOP)
        helper.start()
        while last.value != 320:
            if not lost.is_set():
                seen["last"] = last.captured_ns
            last = next(results)
        again_ns = time.monotonic_ns()
    helper.join()
    late_ms = (seen["lost"] - seen["last"]) / 1e6 - 1000 * _TIMEOUTS.read_s
    return max(late_ms, 0.0), (again_ns - seen["returned"]) / 1e6


def _opened(uri: str, model: Any, on_event: Any = None) -> Iterator[Any]:
    return _patiently(lambda: edgekit.stream(uri, model, on_event=on_event, timeouts=_TIMEOUTS))


def _patiently(open_it: Callable[[], Any]) -> Any:
    """Return what `open_it` opens once the sender, which starts anew for each reader, is there."""
    until = time.monotonic() + 20
    while True:
        try:
            return open_it()
        except SourceError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _our_ages(uri: str, seconds: float, model_s: float = _MODEL_S) -> NDArray[np.float64]:
    """Return time since the start in s and age in ms of each result, [n, 2]."""
    ages: list[tuple[float, float]] = []
    with closing(_opened(uri, lambda frame: time.sleep(model_s))) as results:
        start_s = time.monotonic()
        for result in results:
            _note_age(ages, start_s, result.frame)
            if time.monotonic() - start_s > seconds:
                return np.array(ages)
    raise AssertionError("the stream ended")


def _peers_ages(uri: str, seconds: float) -> NDArray[np.float64]:
    ages: list[tuple[float, float]] = []
    capture = cv2.VideoCapture(uri)
    start_s = time.monotonic()
    while time.monotonic() - start_s <= seconds:
        found, frame = capture.read()
        if not found:
            raise AssertionError("the stream ended")
        time.sleep(_MODEL_S)
        _note_age(ages, start_s, frame)
    capture.release()
    return np.array(ages)


def _note_age(ages: list[tuple[float, float]], start_s: float, frame: NDArray[Any]) -> None:
    drawn_ns = read_timestamp(frame)
    if drawn_ns is not None:
        ages.append((time.monotonic() - start_s, (time.monotonic_ns() - drawn_ns) / 1e6))


def _at_the_end(ages: NDArray[np.float64], seconds: float) -> float:
    """Return the median age in the last sixth of a run: from 10 s on, of 12."""
    return float(np.median(ages[ages[:, 0] >= seconds * 5 / 6, 1]))


def _percentile(runs: list[NDArray[np.float64]], which: float) -> Spread:
    """Return a percentile of each run's ages, without its first second, in which it settles."""
    return Spread.of(np.array([np.percentile(a[a[:, 0] >= 1, 1], which) for a in runs]))
