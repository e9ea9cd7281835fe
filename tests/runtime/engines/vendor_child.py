"""Runs with TensorRT-RTX on its path: .onnx files through EdgeKit's builder, answers as JSON."""

import json
import sys
from pathlib import Path

import msgspec
import tensorrt_rtx

from edgekit.errors import EdgeKitError
from edgekit.runtime.engines import BuildOptions
from edgekit.runtime.engines.builder import build_engine


def built(model, options):
    events, steps = [], []
    try:
        engine = build_engine(
            Path(model).read_bytes(),
            options,
            tensorrt_rtx,
            on_event=lambda event: events.append(event.text),
            on_progress=lambda *step: steps.append(step),
        ).engine
    except EdgeKitError as error:
        return {"error": [type(error).__name__, str(error)], "size": 0, "events": events}
    return {"error": None, "size": len(engine), "events": events, "steps": steps}


request = json.load(sys.stdin)
options = msgspec.convert(request["options"], BuildOptions)
print(json.dumps([built(model, options) for model in request["models"]]))
