"""Inference engines, one file each; the file's name is the backend's name.

A module here has `READS`, the model formats it can open, and a class `Backend` as below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from edgekit.specs import TensorSpec
from edgekit.targets.files import SystemFiles
from edgekit.targets.processors import allowed_cpus, physical_cores

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing only from Python 3.11


class Backend(Protocol):
    """What an inference engine does.

    The engine owns its input memory, so that preprocessing can end in it; the caller owns the
    outputs.

    Attributes:
        inputs: specs of the inputs, batch 1.
        outputs: specs of the outputs.
        threads: CPU threads that it uses.
        executes: what truly runs, in words ("LiteRT 2.3.0, XNNPACK").
        float_tolerance: may be left out (1 %): by what share of the largest value float outputs may
            differ from the golden samples.
        preprocessor: may be left out; of an engine that can preprocess pictures itself, a method
            ``preprocessor(index, on_cpu)``. It returns what writes a uint8 frame into an input as
            `Preprocessor` `on_cpu` does, and says whether it took that frame; or it raises the
            `EdgeKitError` that says why the CPU has to do it. `input_buffer` holds such an input
            too, and whoever takes the buffer is the next to write the input.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    threads: int
    executes: str

    def __init__(self, model_path: Path, threads: int) -> None:
        """Open the model; `ModelError` if it cannot be read, `MissingPackage` without engine."""

    def input_buffer(self, index: int) -> NDArray[Any]:
        """Return the memory of an input, to be filled before `run` and dropped by then."""

    def run(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Infer from the input buffers into `outputs`, arrays of the output specs."""

    def close(self) -> None:
        """Release the engine; it is not used afterwards."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""


def default_threads() -> int:
    """Return the physical cores this process may use, less one for camera and system, at least 1.

    Two hardware threads of one core do not make inference faster.
    """
    return max(1, physical_cores(SystemFiles(), allowed_cpus()) - 1)


def first_line(error: Exception) -> str:
    """Return the first line of an engine's message, or its kind where there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
