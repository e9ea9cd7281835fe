"""The file of a `.tflite` as Python objects that can be changed, and back.

Only for files that `describe_tflite` has passed: the generated classes trust every offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import require

_ALIGNMENT = 16  # of constants, as the schema asks: kernels read them where they lie


def schema() -> Any:
    """Return the generated classes of the schema."""
    return require("ai_edge_litert.schema_py_generated", "convert")


def unpack(content: bytes) -> Any:
    """Return a `ModelT` whose constants are read-only views of `content`."""
    return schema().ModelT.InitFromPackedBuf(content, 0)


def pack(model: Any) -> bytes:
    """Return the file of a `ModelT`."""
    flatbuffers: Any = require("flatbuffers", "convert")

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            # Python's generated code knows nothing of `force_align`; only constants are bytes.
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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


def kinds_of(model: Any) -> list[str]:
    """Return the builtin's name of each operator of a model's main subgraph."""
    names = {code: name for name, code in vars(schema().BuiltinOperator).items() if name[0] != "_"}
    kinds = [
        names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes
    ]
    return [kinds[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
