"""Operators of TensorRT-RTX: as those of `tensorrt`, whose interface it has."""

from edgekit.profiling.operators.tensorrt import times

__all__ = ["times"]
