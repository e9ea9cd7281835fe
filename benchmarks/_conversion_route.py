"""One conversion in a process of its own: `python -m benchmarks._conversion_route ROUTE ...`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tensorflow(model: Path, samples: Any) -> bytes:
    """Do what TensorFlow's guide says."""
    import keras

    from benchmarks._peers import tensorflow_int8

    return tensorflow_int8(keras.models.load_model(model, compile=False), samples)


def quick(model: Path, samples: Any) -> bytes:
    """Do what `edgekit.convert` does with `int8_steps=()`, up to the `.tflite`."""
    return _edgekit(model, samples, int8_steps=())


def default(model: Path, samples: Any) -> bytes:
    """Do what `edgekit.convert` does by default, up to the `.tflite`."""
    return _edgekit(model, samples)


def _edgekit(model: Path, samples: Any, **settings: Any) -> bytes:
    from edgekit.converters.formats.litert import emit
    from edgekit.converters.sources import open_source

    source = open_source(model, scratch=model.parent)
    return emit(source, "int8", lambda: map(tuple, samples()), **settings).content


ROUTES = {"TensorFlow": tensorflow, "quick": quick, "default": default}


def main() -> None:
    """Convert, write the file, and print what it cost as JSON."""
    route, model, pictures, out = sys.argv[1:]
    stored = np.load(pictures, mmap_mode="r")  # uint8 [n, h, w, c]; models take -1..1

    def samples() -> Iterator[list[NDArray[np.float32]]]:
        return ([picture[None].astype(np.float32) / 127.5 - 1] for picture in stored)

    Path(out).write_bytes(ROUTES[route](Path(model), samples))
    used = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime
    peak_mb = max(_peak_mb(), children.ru_maxrss * 1024 / 1e6)
    print(json.dumps({"cpu_s": cpu_s, "peak_mb": peak_mb}))


def _peak_mb() -> float:
    """Return the most memory that this process has held; getrusage counts the parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
