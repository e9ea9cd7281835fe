"""Float .tflite files as source models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.sources.graph import checked_inputs
from edgekit.errors import ModelError, require
from edgekit.runtime.tflite import TfliteDescription, describe_tflite
from edgekit.specs import TensorSpec

_QUANTIZED = ("int8", "uint8", "int16", "int4", "int2")


@dataclass(frozen=True)
class TfliteSource:
    """One .tflite file as a source model.

    Attributes:
        content: the file.
        description: what it holds.
        interpreter: LiteRT's interpreter on it.
        kind: ``tflite``.
    """

    content: bytes
    description: TfliteDescription
    interpreter: Any
    kind: str = "tflite"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, batch 1, named as in the file."""
        return self.description.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, likewise."""
        return self.description.outputs

    @property
    def precision(self) -> str:
        """What it is: ``fp32``, ``fp16``, ``dynamic``, ``int8`` (uint8 too) or ``int16x8``."""
        tensors = self.description.tensors
        computed = {t.dtype for t in tensors if t.scales and not t.constant_bytes}
        if computed & {"int8", "uint8"}:  # outputs and states may be int16 beside them
            return "int8"
        if "int16" in computed:
            return "int16x8"
        if any(t.scales and t.dtype in _QUANTIZED for t in tensors):
            return "dynamic"
        return "fp16" if any(t.dtype == "float16" for t in tensors) else "fp32"

    def predict(self, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs for one sample; see `SourceModel.predict`.

        Quantized inputs and outputs are taken and given as the integers that they are.
        """
        arrays = checked_inputs(self.inputs, inputs)
        # Fused recurrent layers keep their state from one call to the next; samples are apart.
        self.interpreter.reset_all_variables()
        for detail, array in zip(self.interpreter.get_input_details(), arrays, strict=True):
            self.interpreter.set_tensor(detail["index"], array)
        self.interpreter.invoke()
        return tuple(
            np.array(self.interpreter.get_tensor(detail["index"]))
            for detail in self.interpreter.get_output_details()
        )


def open_tflite(path: Path, input_shape: tuple[int, ...] | None) -> TfliteSource:
    """Open a .tflite file; see `open_source`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    description = describe_tflite(content, str(path))
    _check_shapes(description, input_shape, str(path))
    foreign = sorted({op.name for op in description.operators if op.is_custom})
    if foreign:
        raise ModelError(
            f"{path} needs the operators {', '.join(foreign)}, which LiteRT has not built in; "
            f"convert the model without TensorFlow's (Flex) or custom operators"
        )
    return TfliteSource(content, description, open_interpreter(content, str(path)))


def open_interpreter(content: bytes, where: str, **options: Any) -> Any:
    """Return LiteRT's interpreter on a file that `describe_tflite` has passed.

    Raises:
        ModelError: LiteRT cannot prepare it.
    """
    litert: Any = require("ai_edge_litert.interpreter", "convert")
    try:
        interpreter = litert.Interpreter(model_content=content, **{"num_threads": 1, **options})
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"LiteRT cannot prepare {where}: {said}") from error
    return interpreter


def _check_shapes(
    description: TfliteDescription, input_shape: tuple[int, ...] | None, where: str
) -> None:
    for spec in description.inputs:
        if input_shape is not None and (len(description.inputs) > 1 or spec.shape != input_shape):
            raise ModelError(
                f"--input-shape {'x'.join(map(str, input_shape))} contradicts {where}: its input "
                f"{spec.name} is {'x'.join(map(str, spec.shape))}; a .tflite keeps its shapes"
            )
        if not spec.shape or spec.shape[0] != 1:
            raise ModelError(
                f"{where}: its input {spec.name} is {spec.shape}, and EdgeKit needs batch 1; "
                f"convert the model with batch 1"
            )
