"""Operators of OpenVINO in bfloat16: as those of `openvino`, whose engine it is."""

from edgekit.profiling.operators.openvino import times

__all__ = ["times"]
