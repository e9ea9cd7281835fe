"""Runs with TensorRT-RTX on its path and nothing of EdgeKit: requests in, verdicts out, as JSON."""

import json
import re
import sys
from pathlib import Path

import tensorrt_rtx as trt


class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.errors = []
        self.layers = ""

    def log(self, severity, message):
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)
        elif message.startswith("Layers:"):
            # The engine inspector needs a GPU; the builder's log holds the same table.
            self.layers = message


def types(text):
    return re.findall(r"Datatype: (\w+)", text)


def layer(line):
    head, _, tail = line.partition(", Outputs: [")
    inputs, _, constants = head.partition("], Constants: [")
    kind = re.search(r"LayerType: (\w+)", line)
    tactic = re.search(r"TacticName: ([^,]*)", tail)
    return {
        "kind": kind[1] if kind else "",
        "inputs": types(inputs),
        "constants": types(constants),
        "tactic": tactic[1] if tactic else "",
        "nodes": re.findall(r"\[ONNX Layer: ([^\]]*)\]", tail),
    }


def judge(model, engines):
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(model):
        messages = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return {"refused_by": "parse", "messages": messages, "layers": []}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return {"refused_by": "build", "messages": log.errors, "layers": []}
    if engines:
        Path(engines, Path(model).with_suffix(".engine").name).write_bytes(memoryview(engine))
    lines = [line for line in log.layers.splitlines() if "LayerType" in line]
    return {"refused_by": None, "messages": [], "layers": [layer(line) for line in lines]}


request = json.load(sys.stdin)
if "operators" in request:
    log = Log()
    network = trt.Builder(log).create_network(0)
    parser = trt.OnnxParser(network, log)
    answer = [parser.supports_operator(name) for name in request["operators"]]
else:
    answer = [judge(model, request["engines"]) for model in request["models"]]
print(json.dumps(answer))
