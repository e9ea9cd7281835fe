r"""Convert an image classifier to int8, say what that cost, and name what some pictures show.

    python examples/classify_images.py

Without arguments: the demo's MobileNet on generated frames. With a ResNet of your own:

    python examples/classify_images.py --model resnet.h5 --preprocess raw \
        --calibration set.npz::x_calib,y_calib --evaluation set.npz::x_test,y_test
"""

import argparse
from pathlib import Path

import edgekit
import edgekit.demo
from edgekit.data import load_data
from edgekit.demo.frames import LABELS, make_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=Path(edgekit.demo.__file__).with_name("model.keras"))
    parser.add_argument("--preprocess", default="signed")
    parser.add_argument("--calibration", help="image folder or FILE.npz::X,Y")
    parser.add_argument("--evaluation", help="the same, with labels")
    parser.add_argument("--output", default="classifier.edgekit")
    options = parser.parse_args()

    evaluation = load_data(options.evaluation or make_set(100, seed=2))
    bundle = edgekit.convert(
        options.model,
        options.output,
        precision="int8",
        preprocess=options.preprocess,
        data=options.calibration or make_set(100, seed=1)[0],
        eval_data=evaluation,
        labels=None if options.evaluation else LABELS,
    )
    accuracy = bundle.manifest.accuracy
    print(f"{accuracy.metric}: {accuracy.source:.1%} before, {accuracy.converted:.1%} in int8")

    with edgekit.open(bundle.path) as model:
        for index in range(5):
            best = model(evaluation.read(index)).value[0]
            print(f"picture {index}: {best.label} {best.score:.2f}")


if __name__ == "__main__":
    main()
