"""Which GPU an engine would be built for, asked of the CUDA driver's library alone.

`libcuda` is there wherever an NVIDIA driver is, so that building needs no CUDA binding. Names and
numbers are of the driver API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
"""

from __future__ import annotations

import ctypes
from typing import Any

import msgspec

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES = 256


class Gpu(msgspec.Struct, frozen=True):
    """A GPU: its name, and its compute capability like "8.7"."""

    name: str
    compute_capability: str


def first_gpu(library: Any = None) -> Gpu | None:
    """Return the first GPU that CUDA shows, the one that engines are built for, or None.

    Args:
        library: libcuda, loaded; None: the one that the loader finds.
    """
    try:
        cuda = library or ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return None
    name = ctypes.create_string_buffer(_NAME_BYTES)
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    if failed:
        return None
    return Gpu(name.value.decode("utf-8", "replace"), f"{major.value}.{minor.value}")
