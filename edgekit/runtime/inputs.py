"""Frames into the inputs of a model: by its engine where that can preprocess, else by the CPU."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, EdgeKitError, UsageError
from edgekit.runtime.backends import Backend
from edgekit.runtime.preprocess import Preprocessor

PreprocessOn = Literal["auto", "cpu", "gpu"]
Write = Callable[[NDArray[np.uint8]], bool]

_LOG = logging.getLogger(__name__)


class InputWriter:
    """Writes frames into one input of a backend.

    Args:
        backend: with the model open.
        index: of the input.
        on_cpu: preprocesses for it.
        preprocess_on: see `open_model`.

    Raises:
        UsageError: gpu, for a backend that leaves it to the CPU.
        EdgeKitError: gpu, and why it cannot do it.
    """

    def __init__(
        self, backend: Backend, index: int, on_cpu: Preprocessor, preprocess_on: PreprocessOn
    ) -> None:
        self._backend = backend
        self._index = index
        self._on_cpu = on_cpu
        self._on_gpu = _on_gpu(backend, index, on_cpu, preprocess_on)

    def __call__(self, frame: NDArray[Any]) -> None:
        """Write `frame` into the input.

        Raises:
            DataError: a frame that the input cannot take.
        """
        is_picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
        if self._on_gpu is not None and is_picture and self._on_gpu(frame):
            return
        try:
            self._on_cpu(frame, self._backend.input_buffer(self._index))
        except DataError as error:
            # Its frames hold the buffer, and LiteRT does not run while anyone does.
            traceback.clear_frames(error.__traceback__)
            raise


def _on_gpu(
    backend: Backend, index: int, on_cpu: Preprocessor, preprocess_on: PreprocessOn
) -> Write | None:
    """Return what preprocesses on the GPU, or None where the CPU does; a fall-back is told."""
    method = getattr(backend, "preprocessor", None)
    offered = cast("Callable[[int, Preprocessor], Write] | None", method)
    if preprocess_on == "gpu":
        if offered is None:
            raise UsageError(
                f"`preprocess_on` gpu needs a backend that does it, tensorrt or tensorrt_rtx; "
                f"this one ({backend.executes}) leaves it to the CPU"
            )
        return offered(index, on_cpu)
    is_picture = on_cpu.preprocess.size is not None
    if preprocess_on == "cpu" or offered is None or not is_picture:
        return None
    try:
        return offered(index, on_cpu)
    except EdgeKitError as error:
        _LOG.warning("frames are preprocessed on the CPU: %s", error)
        return None
