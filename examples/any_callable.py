"""Use EdgeKit's camera runtime with a model of your own: any callable that takes a frame.

python examples/any_callable.py --source test://320x240@30
"""

import argparse

import numpy as np

import edgekit


def brightness(frame: np.ndarray) -> float:
    """Stand for your model: the mean grey level of a uint8 BGR frame."""
    return float(frame.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="test://320x240@30")
    parser.add_argument("--max-frames", type=int, default=30)
    options = parser.parse_args()
    for result in edgekit.stream(options.source, brightness, max_frames=options.max_frames):
        print(f"{result.frame_id:6} {result.age_ms:6.2f} ms  brightness {result.value:.1f}")


if __name__ == "__main__":
    main()
