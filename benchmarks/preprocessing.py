"""A 1280x720 camera frame into the int8 input of a 224x224 model.

Ours: resize, colour order, and one table that holds mean, std and quantization, ending in the
input buffer. Peer: what tutorials do: colour order, resize, a float image normalized by mean and
std, quantized by round, clip and astype. Both with one OpenCV thread; the thread's CPU time.

It must show: at most half the peer's time, for simple scaling and for mean and std. The resize
alone is the floor below which no preprocessing comes.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._measure import Effort, Row, in_turns, on_clock, ratio
from benchmarks._subjects import picture
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Preprocess, TensorSpec

_SIDE = 224
# Scale and zero point as the converter chooses them for these value ranges.
_SIGNED = TensorSpec("input", (1, _SIDE, _SIDE, 3), "int8", 0.007843137718737125, -1)
_UNIT = TensorSpec("input", (1, _SIDE, _SIDE, 3), "int8", 1 / 255, -128)
_IMAGENET = TensorSpec("input", (1, _SIDE, _SIDE, 3), "int8", 0.018658, -14)


def measure(effort: Effort) -> list[Row]:
    cv2.setNumThreads(1)
    cases = {"unit": _UNIT, "signed": _SIGNED, "imagenet": _IMAGENET}
    return [row for preset, spec in cases.items() for row in _compare(preset, spec, effort)]


def _compare(preset: str, spec: TensorSpec, effort: Effort) -> list[Row]:
    frame = picture()
    preprocess = Preprocess.parse(preset).for_input(spec)
    preprocessor = Preprocessor(preprocess, spec)
    ours_out, peer_out = (np.zeros(spec.shape, spec.dtype) for _ in range(2))
    small = np.empty((_SIDE, _SIDE, 3), np.uint8)
    costs = [
        on_clock(lambda: preprocessor(frame, ours_out)),
        on_clock(lambda: _tutorial(frame, preprocess, spec, peer_out)),
        on_clock(lambda: cv2.resize(frame, (_SIDE, _SIDE), dst=small)),
    ]
    ours, peer, floor = in_turns(costs, *((2, 3) if effort == "tiny" else (15, 40)))
    if np.abs(ours_out.astype(int) - peer_out).max() > 1:
        raise AssertionError("the two compute different things: the comparison is void")
    return [
        Row(f"{preset}: tutorial / ours", ratio(peer, ours), at_least=2.0),
        Row(f"{preset}: ours / resize alone", ratio(ours, floor)),
    ]


def _tutorial(
    frame: NDArray[np.uint8], preprocess: Preprocess, spec: TensorSpec, out: NDArray[np.int8]
) -> None:
    rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    small = cv2.resize(rgb, (_SIDE, _SIDE))
    mean = np.array(preprocess.mean, np.float32)
    std = np.array(preprocess.std, np.float32)
    image = small.astype(np.float32) * np.float32(preprocess.scale)
    if preprocess.mean != (0.0,):
        image = image - mean
    if preprocess.std != (1.0,):
        image = image / std
    quantized = np.round(image / np.float32(spec.scale) + np.float32(spec.zero_point))
    out[0] = np.clip(quantized, -128, 127).astype(np.int8)
