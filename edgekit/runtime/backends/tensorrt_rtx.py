"""TensorRT-RTX on an NVIDIA RTX GPU: the backend `tensorrt` with another module.

Unverified on a GPU: none was at hand. Its engines compile without one.
"""

from __future__ import annotations

from edgekit.runtime.backends import tensorrt as _tensorrt

READS = _tensorrt.READS


def available() -> bool:
    """Tell whether TensorRT-RTX, pycuda and a GPU are here, without importing either package."""
    return _tensorrt.is_available("tensorrt_rtx")


class Backend(_tensorrt.Backend):
    """The backend `tensorrt`, by TensorRT-RTX."""

    flavour = "tensorrt_rtx"
