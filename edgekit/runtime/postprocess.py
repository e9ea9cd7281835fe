"""Raw outputs decoded into what people and programs want: classes, a class map, numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.runtime.preprocess import Preprocessor
from edgekit.runtime.segmenter import NOT_SEEN as NOT_SEEN
from edgekit.runtime.segmenter import Segmenter, activated
from edgekit.specs import Postprocess, Task, TensorSpec


class ClassScore(msgspec.Struct, frozen=True, gc=False):
    """One class of a classification: index in the output, name, probability 0..1."""

    index: int
    label: str
    score: float


class SegmentationMap(msgspec.Struct, frozen=True):
    """The class of every pixel.

    Attributes:
        class_map: uint8 [height, width] at the frame's size (of a float model input: at the
            output's); 255: not seen by the model.
        labels: class names.
    """

    class_map: NDArray[np.uint8]
    labels: tuple[str, ...]

    def shares(self) -> dict[int, float]:
        """Return the share of the pixels, 0..1, of each class that occurs, by its number."""
        counts = cv2.calcHist([self.class_map], [0], None, [256], [0, 256]).reshape(-1)
        return {int(i): float(counts[i]) / self.class_map.size for i in np.flatnonzero(counts)}

    def name(self, index: int) -> str:
        """Return the name of a class by its number."""
        return "not seen" if index == NOT_SEEN else _name(self.labels, index)


Value = tuple[ClassScore, ...] | SegmentationMap | NDArray[np.float32]


def to_json(value: Any) -> bytes:
    """Encode a decoded value as JSON: class scores, pixel shares, or nested lists of numbers."""
    if isinstance(value, SegmentationMap):  # a Struct would be written with its own fields
        height, width = value.class_map.shape
        shares = {value.name(i): round(share, 6) for i, share in value.shares().items()}
        value = {"height": height, "width": width, "shares": shares}
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


class Postprocessor:
    """Decodes the first output of a model; further outputs stay raw.

    Args:
        task: what the output means.
        postprocess: how it is read.
        spec: the output.
        labels: class names, or empty.
        preprocessor: knows where the frame lies in the model's input.

    Raises:
        UsageError: a segmentation whose output is no class map, or has more than 255 classes.
    """

    def __init__(
        self,
        task: Task,
        postprocess: Postprocess,
        spec: TensorSpec,
        labels: tuple[str, ...],
        preprocessor: Preprocessor,
    ) -> None:
        self._postprocess = postprocess
        self._spec = spec
        self._labels = labels
        # Integers rank as the real values do: only those of the best classes are needed.
        self._reals = _real_values(spec) if postprocess.activation == "none" else None
        self._segmenter = (
            Segmenter(postprocess, spec, preprocessor) if task == "segmentation" else None
        )
        decoders: dict[Task, Callable[[NDArray[Any], NDArray[Any]], Value]] = {
            "classification": self._classify,
            "segmentation": self._segment,
            "sequence": self._numbers,
            "regression": self._numbers,
        }
        self._decode = decoders[task]

    def __call__(self, output: NDArray[Any], frame: NDArray[Any]) -> Value:
        """Decode `output` (raw, batch 1) of `frame`."""
        return self._decode(output, frame)

    def scores(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """Return `output` as real values with the activation applied, batch dimension kept."""
        return activated(self._spec.dequantize(output), self._postprocess.activation)

    def class_scores(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """Return the score of each class of a classification, [classes]."""
        scores = self.scores(output).reshape(-1)
        if scores.size == 1:  # one sigmoid unit: the probability of class 1
            scores = np.array([1 - scores[0], scores[0]], np.float32)
        return scores

    def _classify(self, output: NDArray[Any], frame: NDArray[Any]) -> tuple[ClassScore, ...]:
        reals = self._reals
        scores: NDArray[Any] = output.reshape(-1) if reals else self.class_scores(output)
        best = top_k(scores, self._postprocess.top_k)
        chosen: list[Any] = [scores.item(index) for index in best]
        real = [reals[code] for code in chosen] if reals else chosen
        labels = self._labels
        names = [labels[i] if i < len(labels) else str(i) for i in best]
        return tuple(map(ClassScore, best, names, real))

    def _segment(self, output: NDArray[Any], frame: NDArray[Any]) -> SegmentationMap:
        return SegmentationMap(self.segmenter().classes(output, frame), self._labels)

    def segmenter(self) -> Segmenter:
        """Return what reads the scores of a segmentation.

        Raises:
            UsageError: the model is no segmentation.
        """
        if self._segmenter is None:
            raise UsageError("class maps and probabilities a pixel are for `task` segmentation")
        return self._segmenter

    def _numbers(self, output: NDArray[Any], frame: NDArray[Any]) -> NDArray[np.float32]:
        numbers: NDArray[np.float32] = self.scores(output)[0]
        return numbers


def top_k(scores: NDArray[Any], k: int) -> list[int]:
    """Return the indices of the k largest of `scores` [n], largest first, ties by lower index."""
    rest = scores.astype(np.float32)
    if rest.size > 64 and 0 < k <= 16:
        # A few scans are faster than sorting or a partition: 5 µs, not 20 or 10, for 1,000 classes.
        indices: list[int] = []
        for _ in range(k):
            index = int(rest.argmax())
            indices.append(index)
            rest[index] = -np.inf
        # Scores of -inf are met twice, NaN comes first: then sorting decides.
        first = scores[indices[0]]
        if len(set(indices)) == k and first == first:
            return indices
        rest = scores.astype(np.float32)
    ordered: list[int] = (-rest).argsort(kind="stable")[:k].tolist()
    return ordered


def _real_values(spec: TensorSpec) -> list[float] | None:
    """Return the real value for each value of an 8-bit output of several classes, else None.

    Negative values count from the list's end, as Python's indices do.
    """
    if spec.scale is None or np.dtype(spec.dtype).itemsize > 1 or spec.shape[-1] == 1:
        return None
    values: list[float] = spec.dequantize(np.arange(256, dtype=np.uint8).view(spec.dtype)).tolist()
    return values


def _name(labels: tuple[str, ...], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)
