"""Parts that are added by writing one file: found by file name, imported only when used.

A backend, camera source, sink, model format, scenario or verb is a module in its kind's package;
the file's name is its name everywhere. Other packages add theirs through one entry-point group a
kind.
"""

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from edgekit.errors import expect_one_of

_ROOT = Path(__file__).parent
_KINDS = {
    # kind: (package below edgekit, entry-point group)
    "backend": ("runtime.backends", "edgekit.backends"),
    "camera": ("runtime.camera", "edgekit.cameras"),
    "sink": ("runtime.sinks", "edgekit.sinks"),
    "format": ("converters.formats", "edgekit.formats"),
    "scenario": ("profiling.scenarios", "edgekit.scenarios"),
}


def names(kind: str) -> list[str]:
    """Return the names of all parts of `kind`, sorted, without importing one."""
    package, group = _KINDS[kind]
    own = {
        file.stem
        for file in (_ROOT / package.replace(".", "/")).glob("*.py")
        if not file.stem.startswith("_")
    }
    return sorted(own | {entry.name for entry in entry_points(group=group)})


def load(kind: str, name: str) -> ModuleType:
    """Import the part `name` of `kind`; `UsageError` names what there is.

    >>> load("sink", "jsonl").__name__
    'edgekit.runtime.sinks.jsonl'
    """
    package, group = _KINDS[kind]
    expect_one_of(kind, name, names(kind))
    if (_ROOT / package.replace(".", "/") / f"{name}.py").is_file():
        return import_module(f"edgekit.{package}.{name}")
    entry, *_ = entry_points(group=group, name=name)
    module: ModuleType = entry.load()
    return module
