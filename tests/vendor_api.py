"""What the API of NVIDIA's Python modules is, on a machine with none of its libraries.

The bindings come from a package index when a test asks; nothing of them is in the repository.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from vendor import installed

CHILD = Path(__file__).with_name("vendor_api_child.py")


def tensorrt_bindings(package):
    """Return the API of TensorRT's bindings, as vendor_api_child.py describes it, from a package.

    They are linked to NVIDIA's libraries, which are not there: empty ones of those names, beside
    the bindings, are enough to import them.
    """
    folder = installed(package, "--no-deps")
    (library,) = folder.glob("tensorrt_bindings/tensorrt.so")
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("no gcc and binutils, which make the libraries that TensorRT's bindings need")
    needed = re.findall(r"NEEDED.*\[(libnv[\w.]+)\]", _output("readelf", "-d", library))
    undefined = re.findall(r" U (\w+)$", _output("nm", "-D", "-u", library), re.MULTILINE)
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in undefined)
    for name in needed:
        if (stub := library.with_name(name)).exists():
            continue
        with tempfile.TemporaryDirectory(dir=folder) as build:
            made = Path(build) / name
            compiler = ["gcc", "-shared", "-w", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", made]
            subprocess.run(compiler, input=source, text=True, check=True)
            made.rename(stub)
    return described(folder, "tensorrt_bindings")


def described(folder, module):
    """Return what vendor_api_child.py says of a module in `folder`."""
    done = subprocess.run(
        [sys.executable, str(CHILD), module],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"{module} cannot be imported here: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
