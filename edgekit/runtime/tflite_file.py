"""Writing a .tflite from the generated classes of its schema."""

from __future__ import annotations

from typing import Any

from edgekit.errors import require

_ALIGNMENT = 16  # of constants, as the schema asks: kernels read them where they lie


def schema() -> Any:
    """Return the generated classes of the schema."""
    return require("ai_edge_litert.schema_py_generated", "cpu")


def pack(model: Any) -> bytes:
    """Return the file of a `ModelT`."""
    flatbuffers: Any = require("flatbuffers", "cpu")

    class Builder(flatbuffers.Builder):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            # Python's generated code knows nothing of `force_align`; only constants are bytes.
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
