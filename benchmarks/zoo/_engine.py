"""An .onnx model built by TensorRT-RTX, which needs no GPU for that."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.zoo._outcome import Outcome
from edgekit.errors import EdgeKitError
from edgekit.runtime.engines.builder import build_engine
from edgekit.runtime.engines.options import BuildOptions
from edgekit.runtime.engines.versions import import_flavour


def build(onnx: Path, packages: Path) -> Outcome:
    """Build a model with the TensorRT-RTX that is in the folder `packages`."""
    sys.path.append(str(packages))
    try:
        build_engine(onnx.read_bytes(), BuildOptions(), import_flavour("tensorrt_rtx"))
    except EdgeKitError as error:
        return Outcome(completed=False, reason=str(error))
    return Outcome(completed=True)
