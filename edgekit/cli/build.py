"""`edgekit build`: the TensorRT engine of a bundle, before its first use."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli._output import Json, note, print_json, print_table, progress

if TYPE_CHECKING:
    from edgekit.bundle import Bundle
    from edgekit.runtime.engines import Engine, EngineEvent

_FLAVOURS = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
# Of an engine's key, in JSON.
_SHOWN = (
    *("model_sha256", "flavour", "version", "architecture", "gpu", "compute_capability"),
    *("driver", "jetpack"),
)


def command(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="Folder NAME.edgekit.")
    ] = None,
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
    list_: Annotated[
        bool, typer.Option("--list", help="Show the engines that are kept, and build none.")
    ] = False,
    json: Json = None,
) -> None:
    """Build a bundle's TensorRT engine, keep it, and replay the golden samples where it can run."""
    from edgekit.bundle import read_bundle
    from edgekit.errors import UsageError, expect_one_of
    from edgekit.runtime.engines import BuildOptions, engine_for

    if list_ == (bundle is not None):
        raise UsageError("give a BUNDLE to build, or --list alone")
    if bundle is None:
        _list(json)
        return
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


def _list(json: str | None) -> None:
    from edgekit.runtime.engines import misfit
    from edgekit.runtime.engines.cache import cache_folder
    from edgekit.runtime.engines.kept import kept_engines, limit_bytes

    folder, limit = cache_folder(), limit_bytes()
    kept = kept_engines(folder)[::-1]
    reasons = [misfit(engine.key) for engine in kept]
    used = [datetime.fromtimestamp(e.used_ns // 10**9, timezone.utc).isoformat() for e in kept]
    rows = [
        (
            "/".join(Path(engine.model).parts[-2:]) or engine.key.model_sha256[:12],
            f"{engine.key.flavour} {engine.key.version}",
            engine.key.gpu or "any",
            f"{engine.size_bytes / 1e6:.1f}",
            when[:16].replace("T", " "),
            reason or "yes",
        )
        for engine, when, reason in zip(kept, used, reasons, strict=True)
    ]
    size_bytes = sum(engine.size_bytes for engine in kept)
    allowed = "no limit" if limit is None else f"of {limit / 1e6:.0f} MB"
    title = f"{folder}: {len(kept)} kept, {size_bytes / 1e6:.1f} MB, {allowed}"
    columns = ("model", "for", "GPU", "MB", "last used (UTC)", "fits this machine")
    print_table(title, columns, rows, json, numbers=False)
    engines: list[dict[str, Any]] = [
        {
            "file": str(engine.file),
            "model": engine.model,
            **{name: getattr(engine.key, name) for name in _SHOWN},
            "size_bytes": engine.size_bytes,
            "last_used": when,
            "fits": reason is None,
            "reason": reason,
        }
        for engine, when, reason in zip(kept, used, reasons, strict=True)
    ]
    result = {"folder": str(folder), "size_bytes": size_bytes, "limit_bytes": limit}
    print_json({**result, "engines": engines}, json)


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
