"""OpenVINO on the CPU, floating-point layers in bfloat16: 8 bits of mantissa, for speed."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edgekit.errors import BackendError
from edgekit.runtime.backends import openvino as _openvino

READS = _openvino.READS


class Backend(_openvino.Backend):
    """The backend `openvino`, in bfloat16.

    Raises:
        BackendError: this CPU has no instructions for it.
    """

    precision = "bf16"
    # MobileNetV2's golden samples differ by up to 2.8 % of their largest output.
    float_tolerance = 0.05

    def _compile(self, openvino: ModuleType, model: Any, threads: int) -> Any:
        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in able:
            raise BackendError(
                f"the backend openvino_bf16 needs a CPU with bfloat16; this one has "
                f"{', '.join(able)}: use the backend openvino"
            )
        return super()._compile(openvino, model, threads)
