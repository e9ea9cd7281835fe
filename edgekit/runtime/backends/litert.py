"""LiteRT (TensorFlow Lite) on the CPU, through `ai_edge_litert` or the older `tflite_runtime`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BackendError, MissingPackage, ModelError, UsageError
from edgekit.runtime.backends import first_line
from edgekit.runtime.closing import Closing
from edgekit.specs import TensorSpec

READS = ("litert",)


class Backend(Closing):
    """A memory-mapped `.tflite` in a LiteRT interpreter; see `edgekit.runtime.backends.Backend`."""

    def __init__(self, model_path: Path, threads: int) -> None:
        module, package = _interpreter_module()
        self.threads = threads
        self.executes = f"{package} {_version(package)}, XNNPACK"
        try:
            self._interpreter = module.Interpreter(model_path=str(model_path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"LiteRT cannot load {model_path}: {first_line(error)}") from error
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self.inputs = tuple(_spec(detail) for detail in inputs)
        self.outputs = tuple(_spec(detail) for detail in outputs)
        self._views = [self._interpreter.tensor(detail["index"]) for detail in inputs]
        self._output_views = [self._interpreter.tensor(detail["index"]) for detail in outputs]

    def input_buffer(self, index: int) -> NDArray[Any]:
        """Return a view of the input tensor; `run` fails while it is held."""
        if self._interpreter is None:
            raise UsageError("the model is closed; open it again")
        view: NDArray[Any] = self._views[index]()
        return view

    def run(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Infer from the input tensors into `outputs`."""
        try:
            # A fused LSTM keeps its state from one invoke to the next, and is then silently wrong
            # (measured: 0.53 instead of 1.0 agreement with its source). This costs 0.2 µs.
            self._interpreter.reset_all_variables()
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"LiteRT failed to run the model: {first_line(error)}") from error
        for view, out in zip(self._output_views, outputs, strict=True):
            out[...] = view()

    def close(self) -> None:
        """Release the interpreter."""
        self._views, self._output_views, self._interpreter = [], [], None


def _interpreter_module() -> tuple[ModuleType, str]:
    for name, package in (
        ("ai_edge_litert.interpreter", "ai-edge-litert"),
        ("tflite_runtime.interpreter", "tflite-runtime"),
    ):
        try:
            return import_module(name), package
        except ImportError:
            continue
    raise MissingPackage(
        "the backend litert needs ai-edge-litert (or tflite-runtime), and neither can be imported; "
        "install it with: pip install 'edgekit[cpu]'"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _spec(detail: dict[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=detail["name"],
        shape=tuple(int(n) for n in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale) or None,
        zero_point=int(zero_point) if scale else None,
    )
