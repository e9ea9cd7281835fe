"""Distil a small network from a large one: labels, soft targets, and the student as a bundle.

    python examples/distillation.py --output student.edgekit

By default the teacher is the demo's MobileNet and the pictures are generated. With a network and a
labelled set of your own, or with the development data:

    python examples/distillation.py --teacher ../shared/data/pretrainedResnet.h5 --preprocess raw \
        --data ../shared/data/cifar10_dev.npz::x_train,y_train --output student.edgekit
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import keras

import edgekit
import edgekit.demo
from edgekit.demo.frames import make_set

TEACHER = Path(edgekit.demo.__file__).with_name("model.keras")


def build_student(shape: tuple[int, ...], classes: int) -> Any:
    """Return a small untrained network: images of `shape` to logits of `classes`."""
    layers = keras.layers
    x = image = keras.Input(shape, name="image")
    for filters in (8, 16, 32):
        x = layers.SeparableConv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(image, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def main() -> None:
    """Distil, say what it brought, and write the student as a bundle."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--data", help="labelled set; by default pictures are generated")
    parser.add_argument("--preprocess", default="signed", help="what the teacher was trained with")
    parser.add_argument("--samples", type=int, default=800, help="how many are generated")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("student.edgekit"))
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    teacher = keras.models.load_model(options.teacher, compile=False)
    side = teacher.input_shape[1:3]
    data = options.data or make_set(options.samples, seed=1, size=side)
    student = build_student(teacher.input_shape[1:], teacher.output_shape[-1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.keras"
        found = edgekit.distill(
            teacher,
            student,
            data,
            path,
            preprocess=options.preprocess,
            augment="shift",
            epochs=options.epochs,
            learning_rate=3e-3,
        ).summary
        edgekit.convert(path, options.output, preprocess=options.preprocess)
    assert found.teacher is not None
    print(f"teacher  {found.teacher_parameters:7,} parameters, accuracy {found.teacher.metric:.1%}")
    print(f"student  {found.parameters:7,} parameters, accuracy {found.after.metric:.1%}")
    print(f"{options.output}: run it with edgekit run")


if __name__ == "__main__":
    main()
