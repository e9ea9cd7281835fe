"""Every error that EdgeKit raises on purpose.

::

    EdgeKitError                exit code
    ├── UsageError              2   an argument has a wrong value
    ├── InputError              2   a file or array that was given cannot be used
    │   ├── ModelError              a trained or compiled model
    │   │   └── UnsafeModelError    it would execute code that the caller did not pass
    │   ├── DataError               a calibration or evaluation set, a frame
    │   └── BundleError             a bundle: damaged, unsafe, or of a future version
    ├── CheckFailed             1   all ran, but a gate (accuracy, golden samples) is missed
    └── EnvironmentLacks        3   this machine has not what the work needs
        ├── MissingPackage          a Python package; the message holds the `pip install` line
        ├── SourceError             a camera or stream that is not there or gives no frames
        ├── OutputError             a place that cannot be written
        └── BackendError            an inference engine that fails or is absent

A message says what was given, what was expected, what is available and what to do, on one line.
"""

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


class EdgeKitError(Exception):
    """Base of all errors that EdgeKit raises on purpose; `exit_code` is the command line's."""

    exit_code = 2


class UsageError(EdgeKitError, ValueError):
    """An argument has a wrong value."""


class InputError(EdgeKitError):
    """A file or array that was given cannot be used."""


class ModelError(InputError):
    """A trained or compiled model that cannot be read or converted."""


class UnsafeModelError(ModelError):
    """A model whose loading would execute code that the caller did not pass."""


class DataError(InputError):
    """A calibration set, an evaluation set or a frame that cannot be used."""


class BundleError(InputError):
    """A bundle that is damaged, unsafe or of a version that this EdgeKit does not know."""


class CheckFailed(EdgeKitError):
    """Everything ran, but a gate is not met."""

    exit_code = 1


class EnvironmentLacks(EdgeKitError):
    """The machine has not what the work needs."""

    exit_code = 3


class MissingPackage(EnvironmentLacks, ImportError):
    """A Python package that an extra brings is not installed."""


class SourceError(EnvironmentLacks):
    """A camera, stream or video that is not there, or gives no frames."""


class OutputError(EnvironmentLacks):
    """A place that cannot be written: permission, disk, file system."""


class BackendError(EnvironmentLacks):
    """An inference engine that is absent or fails."""


def expect_one_of(argument: str, value: str, available: Iterable[str]) -> str:
    """Return `value`, or raise `UsageError` that names what is available.

    >>> expect_one_of("precision", "int8", ["fp32", "int8"])
    'int8'
    """
    known = list(available)
    if value not in known:
        raise UsageError(f"`{argument}` must be one of {', '.join(known)}; got {value!r}")
    return value


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingPackage` with the line that installs it.

    Args:
        module: dotted name, as in ``import``.
        extra: the EdgeKit extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"{module} is needed and cannot be imported ({error}); "
            f"install it with: pip install 'edgekit[{extra}]'"
        ) from error
