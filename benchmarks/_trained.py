"""Networks that the benchmarks train on the development data, once, and keep.

They learn the answers of MLPerf Tiny's ResNet-8, which saw five times as many pictures as the
development data has: a few minutes on two cores then give weights that mean something.
After Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._subjects import RESULTS
from benchmarks._twins import BATCH
from benchmarks._twins import mobilenet as mobilenet_twin

Array = NDArray[Any]
_TEMPERATURE = 2.0
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


def teacher(cifar: Path) -> Any:
    """Return MLPerf Tiny's ResNet-8, which lies beside the CIFAR-10 file: 86 % of `x_test`."""
    import keras

    return keras.models.load_model(cifar.with_name("pretrainedResnet.h5"), compile=False)


def mobilenet(cifar: Path, steps: int, seed: int = 0, largest: float | None = None) -> Path:
    """Return a MobileNetV1 of 32x32 images 0..255 and 10 logits, as a `.keras` file.

    Args:
        cifar: the development data's CIFAR-10.
        steps: of training with ReLU, 64 pictures each.
        seed: of weights and batches.
        largest: of the activation, such as 6; None: a plain ReLU. A net with a limit begins as
            the one without, and is trained for a quarter of the steps more.
    """
    kind = "relu" if largest is None else f"relu{largest:g}"

    def make() -> Any:
        import keras

        keras.utils.set_random_seed(seed)
        model = _mobilenet_v1(largest)
        if largest is None:
            _learn(model, cifar, steps, seed)
        else:
            begun = keras.models.load_model(mobilenet(cifar, steps, seed), compile=False)
            model.set_weights(begun.get_weights())
            _learn(model, cifar, -(-steps // 4), seed + 1, rate=5e-4)
        return model

    return kept(f"mobilenet_{kind}_{steps}_steps_seed_{seed}", make)


def mobilenet_v2_224(cifar: Path, steps: int) -> Path:
    """Return `keras.applications.MobileNetV2` at 224x224 with 10 logits, as a `.keras` file.

    Its input is -1..1. It is trained on pictures of 64x64, a twelfth of the work; then its
    normalizations learn the statistics of 224x224.
    """

    def make() -> Any:
        import keras

        keras.utils.set_random_seed(0)
        small, large = _mobilenet_v2(64), _mobilenet_v2(224)
        picture = keras.Input((32, 32, 3))
        larger = keras.layers.UpSampling2D(2, interpolation="bilinear")(picture)
        signed = keras.layers.Rescaling(1 / 127.5, -1)(larger)
        _learn(keras.Model(picture, small(signed)), cifar, steps, 0, rate=2e-3)
        large.set_weights(small.get_weights())
        for start in range(0, 320, 16):
            large(at_224(np.load(cifar)["x_train"][start : start + 16]), training=True)
        return large

    return kept(f"mobilenet_v2_224_{steps}_steps", make)


def narrow_mobilenet(cifar: Path, steps: int) -> Path:
    """Return `_twins.mobilenet`, which takes pictures -1..1, as a `.keras` file."""

    def make() -> Any:
        import keras

        keras.utils.set_random_seed(0)
        model, picture = mobilenet_twin(keras), keras.Input((32, 32, 3))
        signed = keras.layers.Rescaling(1 / 127.5, -1)(picture)
        _learn(keras.Model(picture, model(signed)), cifar, steps, 0)
        return model

    return kept(f"narrow_mobilenet_{steps}_steps", make)


def keyword_lstm(kws: Path, epochs: int) -> Path:
    """Return an LSTM over 49 MFCC frames of a spoken word, 12 classes, as a `.keras` file.

    It standardizes what goes in itself. Noise, dropout, smooth labels and shifts of up to 5 frames
    are what 2,994 clips need: 84.6 % of `x_test` after 60 epochs, 74.9 % with dropout alone.
    """

    def make() -> Any:
        import keras

        keras.utils.set_random_seed(0)
        data = np.load(kws)
        clips, words = data["x_train"][..., 0], keras.utils.to_categorical(data["y_train"], 12)
        model = _keyword_lstm(clips)
        smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
        model.compile(keras.optimizers.AdamW(3e-3, weight_decay=1e-2, clipnorm=1.0), smooth)
        random = np.random.default_rng(0)
        for epoch in range(epochs):
            by = random.integers(-5, 6, len(clips))
            moved = np.array(list(map(_shifted, clips, by.tolist())))
            moved[:, :, 0] += random.normal(0, 8, (len(clips), 1))  # how loud it is
            model.optimizer.learning_rate = 1.5e-3 * (1 + np.cos(np.pi * epoch / epochs))
            model.fit(moved, words, 64, verbose=0)
        return model

    return kept(f"keyword_lstm_{epochs}_epochs", make)


def _keyword_lstm(clips: Array) -> Any:
    import keras

    layers = keras.layers
    standardize = layers.Normalization(name="standardize")
    standardize.adapt(clips.reshape(-1, clips.shape[-1]))
    return keras.Sequential(
        [
            keras.Input(clips.shape[1:], name="mfcc"),
            standardize,
            *(layers.GaussianNoise(0.3), layers.SpatialDropout1D(0.1), layers.Dropout(0.1)),
            layers.LSTM(64, name="lstm"),
            layers.Dropout(0.4),
            layers.Dense(12, activation="softmax", name="scores"),
        ]
    )


def _shifted(clip: Array, frames: int) -> Array:
    """Return a clip moved in time; its first or last frame fills the gap."""
    return clip[np.clip(np.arange(len(clip)) - frames, 0, len(clip) - 1)]


def upscaled(pictures: Array) -> Array:
    """Return pictures [n, h, w, 3], uint8, as [n, 224, 224, 3]."""
    return np.array([cv2.resize(picture, (224, 224)) for picture in pictures])


def at_224(pictures: Array) -> Array:
    """Return uint8 pictures [n, h, w, 3] as `mobilenet_v2_224` takes them, float32."""
    return upscaled(pictures).astype(np.float32) / 127.5 - 1


def _mobilenet_v1(largest: float | None) -> Any:
    """After Howard et al., "MobileNets", 2017, with less striding, since pictures are small."""
    import keras

    layers = keras.layers

    def block(layer: Any, tensor: Any) -> Any:
        return layers.ReLU(largest)(layers.BatchNormalization(momentum=0.9)(layer(tensor)))

    image = keras.Input((32, 32, 3))
    tensor = layers.Rescaling(1 / 127.5, -1)(image)
    tensor = block(layers.Conv2D(32, 3, padding="same", use_bias=False), tensor)
    for channels, strides in _BLOCKS:
        depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)
        tensor = block(depthwise, tensor)
        tensor = block(layers.Conv2D(channels, 1, use_bias=False), tensor)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(tensor)))


def _mobilenet_v2(side: int) -> Any:
    import keras

    model = keras.applications.MobileNetV2(
        (side, side, 3), weights=None, classes=10, classifier_activation=None
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.999 needs thousands of steps
    return model


def lessons(cifar: Path, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield what to learn without end: 64 pictures 0..255, float32, and the teacher's answers."""
    pictures = np.load(cifar)["x_train"]
    answers = teacher(cifar)
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(pictures))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            moved = _moved(pictures[order[start : start + BATCH]], random).astype(np.float32)
            softened = np.asarray(answers([moved], training=False)) ** (1 / _TEMPERATURE)
            yield moved, softened / softened.sum(axis=1, keepdims=True)


def _learn(model: Any, cifar: Path, steps: int, seed: int, rate: float = 3e-3) -> None:
    """Train `model`, which takes pictures 0..255 and gives logits, to answer as the teacher."""
    import keras

    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(rate, steps), 0.02),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    model.fit(lessons(cifar, seed), steps_per_epoch=steps, shuffle=False, verbose=0)


def _moved(pictures: Array, random: np.random.Generator) -> Array:
    """Return pictures shifted by at most 4 pixels and mirrored, at random."""
    padded = np.pad(pictures, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    result = np.empty_like(pictures)
    for index, (top, left, mirrored) in enumerate(
        random.integers(0, (9, 9, 2), (len(pictures), 3))
    ):
        cut = padded[index, top : top + 32, left : left + 32]
        result[index] = cut[:, ::-1] if mirrored else cut
    return result


def kept(name: str, make: Callable[[], Any]) -> Path:
    """Return `NAME.keras` among the results, made by `make` unless it is there."""
    path = RESULTS / f"{name}.keras"
    if not path.is_file():
        RESULTS.mkdir(exist_ok=True)
        model = make()
        unfinished = path.with_name(f"unfinished_{path.name}")
        model.save(unfinished)
        unfinished.replace(path)
    return path
