"""Run a bundle on a camera and print what it sees; tell when frames are dropped or the camera lost.

    python examples/camera_loop.py shapes.edgekit --source 0

Without a camera: --source test://640x480@30
"""

import argparse

import edgekit
from edgekit.runtime.events import Event, FrameDropped, SourceBack, SourceLost


def tell(event: Event) -> None:
    if isinstance(event, FrameDropped):
        print(f"  frame {event.frame_id} was dropped: {event.reason}")
    elif isinstance(event, SourceLost):
        print(f"  {event.detail}; waiting for it to come back")
    elif isinstance(event, SourceBack):
        print(f"  the source is back after {event.lost_ms:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--source", default="0")
    parser.add_argument("--max-frames", type=int)
    options = parser.parse_args()
    with edgekit.open(options.bundle) as model:
        results = edgekit.stream(
            options.source, model, on_event=tell, max_frames=options.max_frames
        )
        for result in results:
            best = result.value[0]
            print(f"{result.frame_id:6} {result.age_ms:6.1f} ms  {best.label} {best.score:.2f}")


if __name__ == "__main__":
    main()
