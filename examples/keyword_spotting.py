"""Train an LSTM on spoken words, compile it to one step, and let it listen frame by frame.

python examples/keyword_spotting.py --data kws_mfcc.npz --output keywords.edgekit

The file has clips `x_train` [n, frames, coefficients], classes `y_train` [n], the same as `x_test`
and `y_test`, and names `classes`. Without it, words are made up.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import edgekit


def made_up_words(clips: int = 120, frames: int = 20, coefficients: int = 6) -> dict:
    """Return clips of three words, each a tone that rises, falls or stays."""
    random = np.random.default_rng(0)
    words = random.integers(0, 3, clips)
    slope = np.array([0.3, -0.3, 0.0])[words]
    tone = slope[:, None] * np.arange(frames) + random.normal(0, 1, (clips, 1))
    noise = random.normal(0, 0.2, (clips, frames, coefficients))
    x = (20 * (tone[..., None] + noise) - 40).astype(np.float32)
    half = clips // 2
    parts = {
        "x_train": x[:half],
        "y_train": words[:half],
        "x_test": x[half:],
        "y_test": words[half:],
    }
    return {**parts, "classes": np.array(["rising", "falling", "level"])}


def train(x: np.ndarray, y: np.ndarray, classes: int, epochs: int) -> keras.Model:
    """Return an LSTM that standardizes what it gets: it runs on raw coefficients."""
    keras.utils.set_random_seed(0)
    standardize = keras.layers.Normalization()
    standardize.adapt(x.reshape(-1, x.shape[-1]))
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            standardize,
            keras.layers.GaussianNoise(0.3),  # only in training; it is not converted
            keras.layers.LSTM(64 if len(x) > 1000 else 8),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, 64 if len(x) > 1000 else 8, epochs, verbose=0)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="an .npz; by default words are made up")
    parser.add_argument("--output", default="keywords.edgekit")
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    data = np.load(options.data) if options.data else made_up_words()
    classes = [str(name) for name in data["classes"]]
    x, y, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (part.reshape(*part.shape[:2], -1) for part in (x, x_test))
    bundle = edgekit.convert(
        train(x, y, len(classes), options.epochs),
        options.output,
        precision="int8",
        data=x[:300],
        eval_data=(x_test, y_test.astype(np.int64)),
        labels=classes,
        streaming=True,
    )
    found = bundle.manifest
    print(
        f"right: {found.accuracy.source:.1%} in Keras, {found.accuracy.converted:.1%} as a stream"
    )
    print(f"1,000 steps without a reset: {found.streaming.drift.snr_db:.1f} dB")
    with edgekit.open(bundle) as model:
        for number, result in enumerate(edgekit.stream(iter(x_test[0]), model)):
            if number % 5 == 4:
                best = result.value[0]
                print(f"frame {number + 1:3}: {best.label} {best.score:.2f}")
    print(f"what was said: {classes[int(y_test[0])]}")


if __name__ == "__main__":
    main()
