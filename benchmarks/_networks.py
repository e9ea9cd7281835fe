"""Networks with random weights, converted in a process of their own (see `_subjects.network`)."""

from __future__ import annotations

from typing import Any

import numpy as np

import edgekit
from benchmarks._subjects import frames, video


def mobilenet_v2() -> Any:
    """MobileNetV2 1.0 at 224x224: its time does not depend on its weights."""
    import keras

    return with_statistics(keras.applications.MobileNetV2(weights=None))


def resnet50() -> Any:
    """ResNet-50 at 224x224."""
    import keras

    return with_statistics(keras.applications.ResNet50(weights=None))


def unet() -> Any:
    """U-Net for grey pictures 256x256, as the benchmark `segmentation` trains it."""
    from benchmarks._unets import unet

    return with_statistics(unet("transposed"))


def thousand_classes() -> Any:
    """224x224 pictures and 1,000 classes with next to no arithmetic between: overhead shows."""
    import keras

    picture = keras.Input((224, 224, 3))
    small = keras.layers.AveragePooling2D(32)(picture)
    scores = keras.layers.Dense(1000, activation="softmax")(keras.layers.Flatten()(small))
    return keras.Model(picture, scores)


def with_statistics(model: Any) -> Any:
    """Give every BatchNormalization random gamma and beta, and the statistics of what it sees.

    Then there is something to fold, and all layers matter: with means of 0 and variances of 1 the
    activations of a deep net with random weights vanish, to 1e-10 in MobileNetV2.
    """
    import keras

    random = np.random.default_rng(0)
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    for norm in norms:
        gamma, beta, *moving = norm.get_weights()
        gamma, beta = random.uniform(0.5, 1.5, gamma.shape), random.normal(0, 0.3, beta.shape)
        norm.set_weights([gamma, beta, *moving])
        norm.momentum = 0.0  # one batch decides
    if norms:
        noise = random.uniform(-1, 1, (8, *model.input_shape[1:]))
        model(noise.astype(np.float32), training=True)
    return model


NETWORKS = {
    "mobilenet_v2": (mobilenet_v2, "keras:mobilenet_v2"),
    "resnet50": (resnet50, "keras:resnet50"),
    "unet": (unet, "unit"),
    "thousand_classes": (thousand_classes, "raw"),
}

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "int8": {"precision": "int8"},
    "onnx-fp32": {"precision": "fp32", "format": "onnx"},
    "onnx-int8-cpu": {"precision": "int8", "format": "onnx", "target": "x86-cpu"},
    "onnx-int8-tensorrt": {"precision": "int8", "format": "onnx", "target": "jetson-orin-nano"},
}


def convert(name: str, out: str) -> None:
    """Write the bundle of the network NAME_VARIANT, calibrated on real frames.

    Args:
        name: such as ``mobilenet_v2_int8`` or ``mobilenet_v2_onnx-fp32``.
        out: the bundle's folder.
    """
    import keras

    keras.utils.set_random_seed(0)
    network, _, variant = name.rpartition("_")
    make, preprocess = NETWORKS[network]
    rgb = [frame[..., ::-1].copy() for frame in frames(video(), every=12)]
    edgekit.convert(
        make(),
        out,
        data=rgb,
        preprocess=preprocess,
        golden_frames=False,
        **VARIANTS[variant],
    )
