"""A source whose pictures have their channels last, as one that takes and gives them first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.specs import TensorSpec


@dataclass(frozen=True)
class ChannelsFirst:
    """A `SourceModel` with every tensor of rank 4 as NCHW, as ONNX models of it have them.

    Attributes:
        source: what it is a view of; its tensors of rank 4 are NHWC.
    """

    source: FrozenGraph

    @property
    def kind(self) -> str:
        """That of the source."""
        return self.source.kind

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, NCHW."""
        return tuple(map(_turned, self.source.inputs))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, NCHW."""
        return tuple(map(_turned, self.source.outputs))

    def predict(self, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs for one sample; see `SourceModel.predict`."""
        outputs = self.source.predict(to_channels_last(inputs))
        return tuple(np.moveaxis(a, -1, 1) if a.ndim == 4 else a for a in outputs)


def channels_first(source: SourceModel) -> SourceModel:
    """Return `source` such that its pictures are NCHW; it is itself where there are none."""
    has_pictures = any(len(spec.shape) == 4 for spec in (*source.inputs, *source.outputs))
    return ChannelsFirst(source) if isinstance(source, FrozenGraph) and has_pictures else source


def to_channels_last(inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """Return the inputs of a `ChannelsFirst` as its source takes them."""
    return tuple(np.moveaxis(a, 1, -1) if np.ndim(a) == 4 else a for a in inputs)


def _turned(spec: TensorSpec) -> TensorSpec:
    if len(spec.shape) != 4:
        return spec
    batch, height, width, channels = spec.shape
    return msgspec.structs.replace(spec, shape=(batch, channels, height, width))
