"""What the linter finds."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["refused", "not fused", "note"]
"""``refused``: parser or builder end without an engine; ``not fused``: an engine comes out, but
float runs where int8 was meant, or values differ from what ONNX says; ``note``: good to know."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that TensorRT objects to in an ONNX file.

    Attributes:
        severity: what comes of it.
        rule: name of the rule in `docs/tensorrt-rules.md`.
        node: name of the node, input or initializer; an unnamed node is told by its output.
        message: what was found and why it matters, on one line.
        remedy: what to do about it, on one line.
    """

    severity: Severity
    rule: str
    node: str
    message: str
    remedy: str
