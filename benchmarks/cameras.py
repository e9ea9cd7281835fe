"""Four cameras on one model: each one's share, and what one that fails does to the others.

Ours: `edgekit.stream` on four 30 fps MJPEG streams over loopback, of processes of their own, and a
model that takes 20 ms, so that it keeps up with less than half of the frames. One sender is killed
after a quarter of the time and started again at half of it.
Peer: the same without that, in the same round.

It must show: each camera's share of the results within 10 % of a quarter, and no gap between the
results of the other three longer than twice their 99th percentile without the fault.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, closing

import cv2
import numpy as np
from numpy.typing import NDArray

import edgekit
from benchmarks._measure import Effort, Row, Spread
from benchmarks._streams import Sender
from edgekit.runtime.camera import Timeouts

_CAMERAS, _SIZE, _MODEL_S = 4, "160x120", 0.02
_TIMEOUTS = Timeouts(open_s=10.0, read_s=1.0)

Times = list[NDArray[np.float64]]


def measure(effort: Effort) -> list[Row]:
    if shutil.which("ffmpeg") is None:
        print("cameras needs ffmpeg, not installed: apt-get install ffmpeg")
        return []
    cv2.setNumThreads(1)
    rounds, seconds = {"tiny": (1, 3.0), "normal": (3, 12.0), "full": (5, 30.0)}[effort]
    shares, gaps, returned = [], [], []
    for _ in range(rounds):
        whole, _ = _results(seconds, fails=False)
        broken, back_s = _results(seconds, fails=True)
        counts = np.array([len(times) for times in whole])
        shares.append(100 * np.abs(counts / counts.mean() - 1).max())
        pairs = zip(whole[1:], broken[1:], strict=True)
        gaps.append(max(np.diff(b).max() / np.percentile(np.diff(w), 99) for w, b in pairs))
        returned.append(min(broken[0][broken[0] > back_s], default=back_s + seconds) - back_s)
    return [
        Row("share of a camera: largest deviation from fair", _spread(shares), "%", at_most=10.0),
        Row("longest gap of the others / their p99 without", _spread(gaps), at_most=2.0),
        Row("the failed one gives results after its return", _spread(returned), "s"),
    ]


def _results(seconds: float, *, fails: bool) -> tuple[Times, float]:
    """Return for each camera when its results came, and when the first one's sender came back."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        senders = [stack.enter_context(Sender("mjpeg", _SIZE)) for _ in range(_CAMERAS)]
        stream = edgekit.stream(
            [sender.uri for sender in senders],
            lambda frame: time.sleep(_MODEL_S),
            timeouts=_TIMEOUTS,
        )
        stack.enter_context(closing(stream))
        for result in stream:  # until all have begun
            times[result.source].append(time.monotonic())
            if len(times) == _CAMERAS:
                break
        start_s = time.monotonic()
        back_s: list[float] = []
        fault = threading.Thread(target=_kill_and_return, args=(senders[0], seconds, back_s))
        if fails:
            fault.start()
            stack.callback(fault.join)
        for result in stream:
            now_s = time.monotonic()
            times[result.source].append(now_s)
            if now_s - start_s >= seconds:
                break
    begun = [np.array([t for t in times[s.uri] if t >= start_s]) for s in senders]
    return begun, back_s[0] if back_s else start_s


def _kill_and_return(sender: Sender, seconds: float, back_s: list[float]) -> None:
    time.sleep(seconds / 4)
    sender.stop()
    time.sleep(seconds / 4)
    back_s.append(sender.start(_SIZE) / 1e9)


def _spread(values: list[float]) -> Spread:
    return Spread.of(np.array(values, np.float64))
