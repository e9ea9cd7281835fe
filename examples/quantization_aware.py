"""Train a network on with what int8 will do to it, and make it int8 without a calibration set.

    python examples/quantization_aware.py --output aware.edgekit

By default it is the demo's MobileNet and the pictures are generated. With a network and labelled
pictures of your own, or with the development data:

    python examples/quantization_aware.py --model ../shared/data/pretrainedResnet.h5 \
        --preprocess raw --data ../shared/data/cifar10_dev.npz --output aware.edgekit
"""

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np

import edgekit
import edgekit.demo
from edgekit.demo.frames import make_set

MODEL = Path(edgekit.demo.__file__).with_name("model.keras")
SCALES = {"raw": (1.0, 0.0), "unit": (1 / 255, 0.0), "signed": (1 / 127.5, -1.0)}


def read(path: Path, samples: int) -> tuple[Any, Any, Any, Any]:
    """Return pictures and labels to train on and to test on, from the arrays of an `.npz`."""
    with np.load(path) as arrays:
        names = ("x_train", "y_train", "x_test", "y_test")
        x, y, x_test, y_test = (arrays[name][:samples] for name in names)
    return x, y, x_test, y_test


def main() -> None:
    """Train for int8, convert, and compare."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--data", type=Path, help=".npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--preprocess", default="signed", choices=sorted(SCALES))
    parser.add_argument("--samples", type=int, default=400, help="most pictures of each set")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("aware.edgekit"))
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    model = keras.models.load_model(options.model, compile=False)
    if options.data is None:
        side = model.input_shape[1:3]
        sets = (*make_set(options.samples, 1, side), *make_set(options.samples, 2, side))
    else:
        sets = read(options.data, options.samples)
    x, y, x_test, y_test = sets
    factor, offset = SCALES[options.preprocess]
    inputs = x.astype(np.float32) * factor + offset

    aware = edgekit.quantize_aware(model, calibration=inputs[:128])
    aware.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
    aware.fit(inputs, y, epochs=options.epochs, verbose=2)
    bundle = edgekit.convert(
        aware,
        options.output,
        precision="int8",
        preprocess=options.preprocess,
        eval_data=(x_test, y_test),
    )
    accuracy = bundle.manifest.accuracy
    assert accuracy is not None
    answers = model.predict(x_test.astype(np.float32) * factor + offset, verbose=0)
    print(f"float          accuracy {np.mean(answers.argmax(axis=1) == y_test):.1%}")
    print(f"trained, Keras accuracy {accuracy.source:.1%}")
    print(f"int8           accuracy {accuracy.converted:.1%}: {options.output}")


if __name__ == "__main__":
    main()
