"""What differs between the versions of TensorRT, as data; `docs/tensorrt-versions.md` shows it.

One path runs on all of them: a network with explicit Q/DQ, named tensors, `execute_async_v3`. The
rows are what it has to step around, each seen in the Python bindings of 8.6.1, 10.0.1, 10.3.0,
10.13.3, 11.0.0 and 11.4.0 and in TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgekit.errors import EnvironmentLacks, MissingPackage, expect_one_of, require

Version = tuple[int, int]
FLAVOURS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
OLDEST: dict[str, Version] = {"tensorrt": (8, 6), "tensorrt_rtx": (1, 7)}


class Difference(msgspec.Struct, frozen=True):
    """Something that not every version has.

    Attributes:
        name: attribute of the Python module, dotted.
        since: the first version of TensorRT that has it, of those that EdgeKit works with; None:
            none has.
        until: the first that has it no more; None: all later ones have it.
        rtx: whether TensorRT-RTX has it in a way that is of use.
        here: what EdgeKit does about it.
    """

    name: str
    since: Version | None
    until: Version | None
    rtx: bool
    here: str


DIFFERENCES = (
    Difference(
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        (10, 0),
        None,
        True,
        "set: the types of the .onnx are those of the engine",
    ),
    Difference(
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        (8, 6),
        (11, 0),
        False,
        "set before 10.0, which takes no .onnx without it; later ones ignore it or have it not",
    ),
    Difference(
        "BuilderFlag.INT8",
        (8, 6),
        (11, 0),
        False,
        "set before 10.0 where the model has Q/DQ; a strongly typed network needs it not",
    ),
    Difference(
        "BuilderFlag.FP16",
        (8, 6),
        (11, 0),
        False,
        "set before 10.0 where the model has float16; a strongly typed network needs it not",
    ),
    Difference(
        "IProgressMonitor",
        (10, 0),
        None,
        True,
        "progress, and Ctrl-C stops a build; without it Ctrl-C waits for the build's end",
    ),
    Difference(
        "ParserError.node_name",
        (10, 0),
        None,
        True,
        "errors name the node; without it they give its number",
    ),
    Difference(
        "ITimingCache",
        (8, 6),
        None,
        False,
        "kept beside the engines, so that a second build is shorter; TensorRT-RTX times nothing",
    ),
    Difference(
        "ComputeCapability",
        None,
        None,
        True,
        "`edgekit build --for rtx --compute-capability`: engines for GPUs that are not there",
    ),
    Difference(
        "IInt8EntropyCalibrator2", (8, 6), (11, 0), False, "not used: ranges are in the Q/DQ"
    ),
    Difference("ILayer.precision", (8, 6), (11, 0), False, "not used: types are in the .onnx"),
    Difference(
        "IBuilderConfig.max_workspace_size", (8, 6), (10, 0), False, "`set_memory_pool_limit`"
    ),
    Difference("ICudaEngine.num_bindings", (8, 6), (10, 0), False, "not used: tensors have names"),
    Difference("IExecutionContext.execute_async_v2", (8, 6), (10, 0), False, "`execute_async_v3`"),
    Difference("ICudaEngine.device_memory_size", (8, 6), (11, 0), False, "not used"),
)
_BY_NAME = {difference.name: difference for difference in DIFFERENCES}


class Api(msgspec.Struct, frozen=True):
    """A TensorRT that was imported: `flavour` is the module's name, `version` as it says it."""

    flavour: str
    version: str

    @property
    def name(self) -> str:
        """For people: "TensorRT 10.3.0"."""
        return f"{FLAVOURS[self.flavour]} {self.version}"

    def has(self, name: str) -> bool:
        """Tell whether this version has `name`, one of `DIFFERENCES`."""
        difference = _BY_NAME[name]
        if self.flavour == "tensorrt_rtx":
            return difference.rtx
        number = _number(self.version) or OLDEST[self.flavour]
        since, until = difference.since, difference.until
        return since is not None and since <= number and (until is None or number < until)


def import_flavour(flavour: str) -> Any:
    """Import ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        UsageError: another name.
        MissingPackage: it is not installed, with what to do.
    """
    if expect_one_of("flavour", flavour, FLAVOURS) == "tensorrt_rtx":
        return require(flavour, "rtx")
    try:
        return require(flavour, "jetson")
    except MissingPackage as error:
        raise MissingPackage(
            f"TensorRT cannot be imported ({error.__cause__}); on a Jetson it comes with JetPack, "
            "and edgekit doctor says what hides it"
        ) from error


def api_of(module: Any) -> Api:
    """Return the flavour and version of an imported module.

    Raises:
        EnvironmentLacks: it is older than what EdgeKit works with.
    """
    api = Api(module.__name__, str(getattr(module, "__version__", "of unknown version")))
    oldest, number = OLDEST[api.flavour], _number(api.version)
    if number is None or number < oldest:
        raise EnvironmentLacks(
            f"{api.name} is installed; EdgeKit needs {oldest[0]}.{oldest[1]} or later: "
            "update JetPack, or the package"
        )
    return api


def _number(version: str) -> Version | None:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", version)
    return (int(found[1]), int(found[2])) if found else None
