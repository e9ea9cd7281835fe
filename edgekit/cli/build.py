"""`edgekit build`: the TensorRT engine of a bundle, before its first use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli._output import BundlePath, Json, note, print_json, print_table, progress

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.runtime.engines import Engine, EngineEvent

_FLAVOURS = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}


def command(
    bundle: BundlePath,
    for_: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="ENGINE",
            help="tensorrt: for the GPU of this machine; rtx: TensorRT-RTX, which needs none.",
        ),
    ] = "tensorrt",
    memory_mb: Annotated[
        int | None,
        typer.Option("--memory-mb", help="Most GPU memory for a layer's scratch, in MiB."),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability",
            metavar="X.Y",
            help="With --for rtx: a GPU to build for, like 8.6; may be repeated.",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Build a bundle's TensorRT engine, keep it, and replay the golden samples where it can run."""
    from edgekit.bundle import read_bundle
    from edgekit.errors import UsageError, expect_one_of
    from edgekit.runtime.engines import BuildOptions, engine_for

    flavour = _FLAVOURS[expect_one_of("--for", for_, _FLAVOURS)]
    options = BuildOptions(
        memory_mb=memory_mb, compute_capabilities=tuple(compute_capability or ())
    )
    found = read_bundle(bundle)
    if found.manifest.format != "onnx":
        raise UsageError(
            f"bundle {bundle} is {found.manifest.format}; TensorRT takes onnx: "
            "convert the model again with --format onnx"
        )
    events: list[EngineEvent] = []

    def tell(event: EngineEvent) -> None:
        events.append(event)
        note(event.text)

    begin_s = time.monotonic()
    with progress() as on_progress:
        engine = engine_for(found.model_path, flavour, options, tell, on_progress)
    seconds = time.monotonic() - begin_s
    # Opening would build an engine again that could not be kept, which may take minutes.
    replayed = None if engine.file is None else _replay(found, flavour)
    _print(found, flavour, engine, seconds, events, replayed, json)


def _replay(bundle: Bundle, flavour: str) -> int | None:
    """Return how many golden samples the engine computes as it must; None: no GPU to run it."""
    from edgekit.runtime.engines.gpu import first_gpu
    from edgekit.runtime.model import open_model

    if first_gpu() is None:
        return None
    with open_model(bundle, backend=flavour):
        return bundle.manifest.golden.count


def _print(
    bundle: Bundle,
    flavour: str,
    engine: Engine,
    seconds: float,
    events: list[EngineEvent],
    replayed: int | None,
    json: str | None,
) -> None:
    size_bytes = len(engine.content)
    if replayed is None:
        samples = f"not replayed: {'no GPU here' if engine.file else 'the engine is not kept'}"
    else:
        samples = f"{replayed} agree"
    rows = [
        ("engine", f"{size_bytes / 1e6:.2f} MB, {'kept before' if engine.from_cache else 'built'}"),
        ("file", str(engine.file or "not kept")),
        ("golden samples", samples),
    ]
    print_table(f"{bundle.path}: {flavour} in {seconds:.1f} s", ("", ""), rows, json, numbers=False)
    result = {
        "bundle": str(bundle.path),
        "flavour": flavour,
        "key": engine.key,
        "from_cache": engine.from_cache,
        "file": str(engine.file) if engine.file else None,
        "size_bytes": size_bytes,
        "seconds": seconds,
        "golden": replayed,
        "events": events,
    }
    print_json(result, json)
