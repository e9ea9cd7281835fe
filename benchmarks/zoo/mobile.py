"""Networks for small devices."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.zoo import Architecture


def _application(name: str, **settings: Any) -> Any:
    import keras

    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(64, 64, 3), classes=10, **settings)


ARCHITECTURES = (
    Architecture("MobileNet v1", partial(_application, "MobileNet"), note="64x64"),
    Architecture("MobileNet v2", partial(_application, "MobileNetV2"), note="64x64"),
    Architecture(
        "MobileNet v3",
        partial(_application, "MobileNetV3Small"),
        "raw",
        note="Small, 64x64, its own rescaling inside",
    ),
    Architecture(
        "EfficientNet-B0",
        partial(_application, "EfficientNetB0"),
        "raw",
        rounds=False,
        note="64x64, its own rescaling inside",
    ),
)
