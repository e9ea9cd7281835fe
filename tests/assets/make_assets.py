"""Write the small .tflite models that the runtime's tests use, so that those need no TensorFlow.

Run it again after changing it: python tests/assets/make_assets.py
"""

from pathlib import Path

import keras
import numpy as np

from edgekit.converters.formats import litert
from edgekit.converters.sources import open_source

HERE = Path(__file__).parent
SIDE = 16


def classifier() -> keras.Model:
    """Tell which of four colours fills a picture, from raw RGB; exact by construction."""
    picture = keras.Input((SIDE, SIDE, 3), name="picture")
    unit = keras.layers.Rescaling(1 / 255)(picture)
    mean = keras.layers.GlobalAveragePooling2D()(unit)
    scores = keras.layers.Dense(4, activation="softmax", name="scores")(mean)
    model = keras.Model(picture, scores)
    # red, green, blue, white
    weights = np.array([[8, -8, -8, 4], [-8, 8, -8, 4], [-8, -8, 8, 4]], np.float32)
    model.get_layer("scores").set_weights([weights, np.array([0, 0, 0, -4], np.float32)])
    return model


def segmenter() -> keras.Model:
    """Tell for each pixel whether it is dark, red or bright, at half the picture's size."""
    picture = keras.Input((SIDE, SIDE, 3), name="picture")
    unit = keras.layers.Rescaling(1 / 255)(picture)
    small = keras.layers.AveragePooling2D(2)(unit)
    scores = keras.layers.Conv2D(3, 1, name="scores")(small)
    model = keras.Model(picture, scores)
    weights = np.array([[-2, 6, 2], [-2, -6, 2], [-2, -6, 2]], np.float32)[None, None]
    model.get_layer("scores").set_weights([weights, np.array([2, -2, -2], np.float32)])
    return model


def echo() -> keras.Model:
    """Give back a window of four steps of two numbers, as eight numbers."""
    steps = keras.Input((4, 2), name="steps")
    flat = keras.layers.Flatten()(steps)
    model = keras.Model(steps, keras.layers.Dense(8, name="numbers")(flat))
    model.get_layer("numbers").set_weights([np.eye(8, dtype=np.float32), np.zeros(8, np.float32)])
    return model


def colours(count: int = 64):
    """Yield pictures of one colour and noise, as float32 model inputs."""
    random = np.random.default_rng(0)
    known = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3])
    for _ in range(count):
        colour = random.choice(known)
        noise = random.normal(0, 20, (1, SIDE, SIDE, 3))
        yield (np.clip(colour + noise, 0, 255).astype(np.float32),)


def main() -> None:
    for name, make in (("classifier", classifier), ("segmenter", segmenter)):
        source = open_source(make(), scratch=HERE)
        for precision in ("fp32", "int8"):
            emitted = litert.emit(source, precision, colours)
            assert not emitted.fallbacks
            (HERE / f"{name}_{precision}.tflite").write_bytes(emitted.content)
    emitted = litert.emit(open_source(echo(), scratch=HERE), "fp32", None)
    (HERE / "echo_fp32.tflite").write_bytes(emitted.content)


if __name__ == "__main__":
    main()
