"""The file of a `.tflite` as Python objects that can be changed, and back.

Only for files that `describe_tflite` has passed: the generated classes trust every offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.tflite_file import pack as pack
from edgekit.runtime.tflite_file import schema as schema


def unpack(content: bytes) -> Any:
    """Return a `ModelT` whose constants are read-only views of `content`."""
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # constants of large models stand behind the FlatBuffer
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def with_constants_of(content: bytes, values: Mapping[int, NDArray[Any]]) -> bytes:
    """Return a file with other content in some constants, given by the tensor's index."""
    if not values:
        return content
    model = unpack(content)
    for index, array in values.items():
        buffer = schema().BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        model.buffers.append(buffer)
        model.subgraphs[0].tensors[index].buffer = len(model.buffers) - 1
    return pack(model)


def drop_unread(graph: Any) -> list[Any]:
    """Take out and return, the last first, the operators whose outputs nothing reads."""
    read = {int(index) for index in graph.outputs}
    kept: list[Any] = []
    dropped: list[Any] = []
    for operator in reversed(graph.operators):
        is_read = any(int(index) in read for index in operator.outputs)
        (kept if is_read else dropped).append(operator)
        if is_read:
            read.update(map(int, operator.inputs))
    graph.operators = kept[::-1]
    return dropped


def code_of(model: Any, kind: str, version: int = 1) -> int:
    """Return the index of an operator's code in the file, which is at least of a version."""
    builtin = getattr(schema().BuiltinOperator, kind)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            code.version = max(code.version, version)
            return index
    code = schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def size_of(tensor: Any) -> int:
    """Return how many values a tensor has; scalars may be stored without a shape."""
    return 1 if tensor.shape is None else int(np.prod(tensor.shape, dtype=np.int64))


def kinds_of(model: Any) -> list[str]:
    """Return the builtin's name of each operator of a model's main subgraph."""
    names = {code: name for name, code in vars(schema().BuiltinOperator).items() if name[0] != "_"}
    kinds = [
        names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes
    ]
    return [kinds[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
