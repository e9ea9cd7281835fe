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
from edgekit.specs import Postprocess, Task, TensorSpec

NOT_SEEN = 255
"""Class number of frame pixels that the model did not see (outside a centre crop)."""


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

    Class scores of a segmentation are [1, h, w, classes], or [1, classes, h, w] where the model's
    input has its channels first too; one channel, or [1, h, w], is the probability of class 1.

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
        self._preprocessor = preprocessor
        # Integers rank as the real values do: only those of the best classes are needed.
        self._reals = _real_values(spec) if postprocess.activation == "none" else None
        self._class_axis = 0 if preprocessor.preprocess.layout == "nchw" else -1
        if task == "segmentation":
            classes = spec.shape[1:][self._class_axis] if len(spec.shape) == 4 else 1
            if len(spec.shape) not in (3, 4) or classes > NOT_SEEN:
                raise UsageError(
                    f"`task` segmentation needs an output of at most {NOT_SEEN} classes a pixel, "
                    f"[1, h, w, classes] or [1, h, w]; the model's is {list(spec.shape)}"
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
        real = self._spec.dequantize(output)
        if self._postprocess.activation == "softmax":
            powers = np.exp(real - real.max(axis=-1, keepdims=True))
            real = powers / powers.sum(axis=-1, keepdims=True)
        elif self._postprocess.activation == "sigmoid":
            real = np.exp(-np.logaddexp(np.float32(0), -real))  # overflows for no logit
        return real

    def class_scores(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """Return the score of each class of a classification, [classes]."""
        scores = self.scores(output).reshape(-1)
        if scores.size == 1:  # one sigmoid unit: the probability of class 1
            scores = np.array([1 - scores[0], scores[0]], np.float32)
        return scores

    def class_map(self, output: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class of each pixel of a segmentation at the model's size, uint8 [h, w]."""
        image = output[0]
        if image.ndim == 3 and image.shape[self._class_axis] > 1:
            # argmax needs no real values: quantization and softmax keep the order.
            return np.asarray(image.argmax(axis=self._class_axis), np.uint8)
        probability = self.scores(output)[0]
        if image.ndim == 3:
            probability = probability.squeeze(self._class_axis)
        return np.asarray(probability >= self._postprocess.threshold, np.uint8)

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
        return SegmentationMap(self._to_frame(self.class_map(output), frame), self._labels)

    def _to_frame(self, small: NDArray[np.uint8], frame: NDArray[Any]) -> NDArray[np.uint8]:
        if frame.dtype != np.uint8 or self._preprocessor.preprocess.size is None:
            return small
        height, width = frame.shape[:2]
        rows, columns = self._preprocessor.region(height, width)
        if self._preprocessor.preprocess.resize == "center_crop":
            whole = np.full((height, width), NOT_SEEN, np.uint8)
            inner = whole[rows, columns]
            inner[...] = _resize_classes(small, inner.shape[0], inner.shape[1])
            return whole
        if self._preprocessor.preprocess.resize == "letterbox":
            # The map may be smaller than the input, and the frame then begin within a cell.
            model_height, model_width = self._preprocessor.preprocess.size
            lines = _cells(rows, height, small.shape[0] / model_height)
            return small.take(lines, 0).take(
                _cells(columns, width, small.shape[1] / model_width), 1
            )
        return _resize_classes(small, height, width)

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


def _cells(place: slice, length: int, scale: float) -> NDArray[np.intp]:
    """Return the class map's cell at the centre of each of `length` pixels of the frame.

    Args:
        place: the pixels of the model's input that hold the frame.
        length: pixels of the frame.
        scale: cells of the class map a pixel of the model's input.
    """
    centres = place.start + (np.arange(length) + 0.5) * (place.stop - place.start) / length
    return np.asarray(centres * scale, np.intp)


def _resize_classes(classes: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    resized = cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)
