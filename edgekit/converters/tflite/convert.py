"""Frozen graph -> float .tflite, by TensorFlow's converter."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgekit.converters.sources.graph import FrozenGraph, one_line
from edgekit.errors import ModelError, require


def convert_graph(source: FrozenGraph, precision: str = "fp32") -> bytes:
    """Return `source` as a .tflite that computes with real numbers.

    Args:
        source: frozen, batch 1.
        precision: ``fp32``, ``fp16`` or ``dynamic``.

    Raises:
        ModelError: TensorFlow cannot convert it.
    """
    tf: Any = require("tensorflow", "convert")
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([source.concrete], source.owner)
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        with _quiet():
            return bytes(converter.convert())
    except Exception as error:
        raise ModelError(
            f"TensorFlow's converter cannot make this model {precision}: {_useful(str(error))}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warning that says nothing here: a frozen function has no trackable object."""

    def says_something(record: logging.LogRecord) -> bool:
        return "trackable_obj" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(says_something)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
            yield
    finally:
        logger.removeFilter(says_something)


def _useful(message: str) -> str:
    """Return what matters of a converter's message of many lines."""
    missing = re.findall(r"(?:TF Select ops|Custom ops): (.+)", message)
    if missing:
        return f"LiteRT has no operator for TensorFlow's {'; '.join(missing)}"
    if "TensorListReserve" in message:
        return (
            "its recurrent layer was traced with an open batch; export it with a signature of "
            "batch 1, or give the .keras file instead"
        )
    errors = re.findall(r"error: (?:loc\(.*?\): )?(.+)", message)
    return one_line(errors[0] if errors else message)
