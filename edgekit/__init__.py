"""EdgeKit: trained networks onto edge devices: convert, run on cameras, profile.

The public names are imported when they are first used, so that importing edgekit costs next to
nothing and a device that only runs models never needs the converters' packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, read_bundle
    from edgekit.converters.convert import convert
    from edgekit.converters.distill.train import distill
    from edgekit.converters.quantize.aware.rewrite import quantize_aware
    from edgekit.packing import pack, unpack
    from edgekit.profiling.latency import profile
    from edgekit.runtime.model import Model, Prediction
    from edgekit.runtime.model import open_model as open  # noqa: A004
    from edgekit.runtime.stream import Result, stream

_PUBLIC = {
    "Bundle": ("edgekit.bundle", "Bundle"),
    "Model": ("edgekit.runtime.model", "Model"),
    "Prediction": ("edgekit.runtime.model", "Prediction"),
    "Result": ("edgekit.runtime.stream", "Result"),
    "convert": ("edgekit.converters.convert", "convert"),
    "distill": ("edgekit.converters.distill.train", "distill"),
    "open": ("edgekit.runtime.model", "open_model"),
    "pack": ("edgekit.packing", "pack"),
    "profile": ("edgekit.profiling.latency", "profile"),
    "quantize_aware": ("edgekit.converters.quantize.aware.rewrite", "quantize_aware"),
    "read_bundle": ("edgekit.bundle", "read_bundle"),
    "stream": ("edgekit.runtime.stream", "stream"),
    "unpack": ("edgekit.packing", "unpack"),
}

__all__ = [  # noqa: PLE0604
    "Bundle",
    "Model",
    "Prediction",
    "Result",
    "convert",
    "distill",
    "open",
    "pack",
    "profile",
    "quantize_aware",
    "read_bundle",
    "stream",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
