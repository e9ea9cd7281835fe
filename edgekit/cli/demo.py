"""`edgekit demo`: the whole path on what the package ships, offline."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import convert, profile, run
from edgekit.cli._output import note, print_table
from edgekit.errors import require

_CALIBRATION, _EVALUATION = 200, 300


def command(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the results go.")
    ] = Path("edgekit-demo"),
) -> None:
    """Convert a small MobileNet to int8, run it on a generated video, and profile it."""
    import numpy as np

    import edgekit.demo
    from edgekit.atomic import output_errors
    from edgekit.demo.frames import LABELS, make_set, write_video

    for package in ("tensorflow", "jinja2"):  # now, not after generating, nor for the last page
        if find_spec(package) is None:
            require(package, "convert")
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        note("1/4 generating frames and a video")
        images, classes = make_set(_CALIBRATION, seed=101)
        test_images, test_classes = make_set(_EVALUATION, seed=102)
        np.savez(
            output / "shapes.npz",
            x_calib=images,
            y_calib=classes,
            x_test=test_images,
            y_test=test_classes,
            classes=np.array(LABELS),
        )
    write_video(output / "input.mp4")
    bundle = output / "shapes.edgekit"
    note("2/4 converting the shipped MobileNet to int8")
    convert.command(
        Path(edgekit.demo.__file__).with_name("model.keras"),
        bundle,
        precision="int8",
        data=f"{output}/shapes.npz::x_calib,y_calib",
        eval_data=f"{output}/shapes.npz::x_test,y_test",
        preprocess="signed",
        max_drop="2%",
    )
    note("3/4 running it on the video")
    run.command(
        bundle,
        [str(output / "input.mp4")],
        sink=[str(output / "annotated.mp4"), str(output / "results.jsonl")],
    )
    note("4/4 profiling it")
    profile.command([bundle], report=output / "latency.html")
    rows = [
        ("annotated video", str(output / "annotated.mp4")),
        ("results, one line a frame", str(output / "results.jsonl")),
        ("latency report", str(output / "latency.html")),
        ("conversion report", str(bundle / "report.html")),
    ]
    print_table("look at", ("", ""), rows, None, numbers=False)
