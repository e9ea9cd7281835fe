"""A process that asks for an engine, with the stand-in for TensorRT; the test steers it by files.

Arguments: the model, and a folder in which it writes `began` when a build begins, adds a line to
`builds` for each, and goes on with the build when `go` is there. The engine's key goes to output.
"""

import sys
import time
from pathlib import Path

from stand_in_tensorrt import stand_in

from edgekit.runtime import engines
from edgekit.runtime.engines.gpu import Gpu

model, place = map(Path, sys.argv[1:])


def on_step(step):
    if step == 0:
        with (place / "builds").open("a") as file:
            file.write("one\n")
        (place / "began").touch()
    while not (place / "go").exists() and step < 1000:
        time.sleep(0.01)
        return


def tell(event):
    print(event.kind, event.text, flush=True)


sys.modules["tensorrt"] = stand_in(steps=100_000, on_step=on_step)
engines.first_gpu = lambda: Gpu("Orin", "8.7")
engine = engines.engine_for(model, on_event=tell)
print("engine", engine.key, engine.from_cache, flush=True)
