"""TensorRT engines: built from a bundle's .onnx on the machine that runs it, and kept.

They are built in the runtime because a first use may have to; nothing of the converters is needed.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from pathlib import Path
from typing import Any

import msgspec

from edgekit.errors import EnvironmentLacks, ModelError, UsageError
from edgekit.runtime.backends._onnx import check_onnx
from edgekit.runtime.engines.builder import REVISION, Built, build_engine
from edgekit.runtime.engines.cache import Engine, EngineCache, cache_folder
from edgekit.runtime.engines.files import EngineKey
from edgekit.runtime.engines.gpu import Gpu, first_gpu
from edgekit.runtime.engines.kept import limit_bytes
from edgekit.runtime.engines.options import (
    BuildOptions,
    EngineEvent,
    OnEvent,
    OnProgress,
    ShapeRange,
)
from edgekit.runtime.engines.versions import api_of, import_flavour
from edgekit.targets.probe import probe

__all__ = ["BuildOptions", "Engine", "EngineEvent", "ShapeRange", "engine_for"]

_LOG = logging.getLogger(__name__)


def engine_for(
    model: Path,
    flavour: str = "tensorrt",
    options: BuildOptions | None = None,
    on_event: OnEvent | None = None,
    on_progress: OnProgress | None = None,
) -> Engine:
    """Return the engine of a model for this machine: from the cache, or built now and kept.

    Args:
        model: an .onnx file with fixed shapes, as bundles hold it.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        options: of the build; None: those of the last call that gave some for this model here, so
            that what `edgekit build` made is what runs.
        on_event: told what happens; None: the log of this module.
        on_progress: told how far a build is, in a thread of the build.

    Raises:
        ModelError: the model cannot be read, or TensorRT refuses it.
        UsageError: an option that does not fit, or an $EDGEKIT_CACHE_MB that is no number.
        EnvironmentLacks: no TensorRT, or no GPU where one is needed.
    """
    check_onnx(model)
    try:
        onnx = model.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model {model}: {error.strerror}") from error
    module = import_flavour(flavour)
    say = on_event or _log
    cache = EngineCache(cache_folder(), say, limit_bytes())
    key = _key(hashlib.sha256(onnx).hexdigest(), module)
    wanted = cache.remembered(key) if options is None else options
    key = msgspec.structs.replace(key, options=wanted)

    def build(timing_cache: bytes) -> Built:
        return build_engine(
            onnx,
            wanted,
            module,
            timing_cache=timing_cache,
            on_event=say,
            on_progress=on_progress,
        )

    engine = cache.engine(key, build, str(model))
    if options is not None:
        cache.remember(key)
    return engine


def misfit(key: EngineKey) -> str | None:
    """Return why an engine is not the one that this machine takes for its model; None: it is."""
    try:
        here = _key(key.model_sha256, import_flavour(key.flavour))
    except (EnvironmentLacks, UsageError) as error:
        return str(error)
    here = msgspec.structs.replace(here, options=key.options)
    others = [name for name in key.__struct_fields__ if getattr(key, name) != getattr(here, name)]
    words = (f"{name.replace('_', ' ')}: here {getattr(here, name)}" for name in others)
    return ", ".join(words) or None


def _key(model_sha256: str, module: Any) -> EngineKey:
    api = api_of(module)
    gpu: Gpu | None = None
    driver: str | None = None
    jetpack: str | None = None
    if not api.has("ComputeCapability"):  # an engine is for the GPU that it was built beside
        gpu = first_gpu()
        if gpu is None:
            raise EnvironmentLacks(
                f"{api.name} builds only beside the NVIDIA GPU that runs the engine, and CUDA "
                "shows none here; edgekit doctor looks why, edgekit build --for rtx needs none"
            )
        machine = probe()
        driver, jetpack = machine.nvidia_driver, machine.jetpack or machine.jetson_linux
    return EngineKey(
        model_sha256=model_sha256,
        flavour=api.flavour,
        version=api.version,
        architecture=platform.machine(),
        gpu=gpu.name if gpu else None,
        compute_capability=gpu.compute_capability if gpu else None,
        driver=driver,
        jetpack=jetpack,
        builder=REVISION,
        options=BuildOptions(),
    )


def _log(event: EngineEvent) -> None:
    # A build that nobody asked for takes minutes in which nothing else is to be seen: a warning.
    _LOG.log(logging.INFO if event.kind == "tensorrt" else logging.WARNING, "%s", event.text)
