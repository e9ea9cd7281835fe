"""The GPU's preprocessing kernel, its own source compiled as C++ for the CPU.

`runtime/kernel_on_cpu.cpp` is the stand-in for a GPU: a loop over its threads.
"""

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit.runtime.gpu_preprocess import KERNEL

# Some builds of OpenCV for ARM resize with other arithmetic, one grey level apart.
LEVELS_APART = 0 if platform.machine() == "x86_64" else 1


def compiled(folder):
    """Return the kernel as a function of the CPU; skip without a C++ compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++: apt-get install g++ (ci/apt.txt)")
    library = folder / "kernel.so"
    source = Path(__file__).parent / "runtime" / "kernel_on_cpu.cpp"
    command = [compiler, "-std=c++11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{KERNEL.parent}", str(source), "-o", str(library)], check=True)
    launch = ctypes.CDLL(str(library)).launch
    launch.restype, launch.argtypes = None, [ctypes.c_int] * 4 + [ctypes.c_void_p] * 4
    return launch


def assert_equal(ours, theirs, preprocessor):
    """See that both are the same, or where OpenCV may differ, at most one grey level apart."""
    table = preprocessor.table.astype(np.float64)
    step = LEVELS_APART * np.abs(np.diff(table, axis=0)).max()
    assert np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max() <= step * (1 + 1e-6)
