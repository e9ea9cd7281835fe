"""Devices, one TOML file each; the file's name is the target's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgekit.errors import expect_one_of

_FOLDER = Path(__file__).parent


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a profile: what it says, and where that comes from.

    Attributes:
        source: public page that the table's values come from.
        unverified: nobody of this project has seen that page say all of it.
    """

    source: str
    unverified: bool = False


class Support(Fact, frozen=True):
    """What a device can do with one model format.

    Attributes:
        format: ``litert`` or ``onnx``.
        precisions: see `edgekit.specs.Precision`, best first.
        backends: that run it there, preferred first.
    """

    format: str
    precisions: tuple[str, ...]
    backends: tuple[str, ...]


class Gpu(Fact, frozen=True):
    """A CUDA GPU.

    Attributes:
        name: its generation, for people.
        compute_capability: of CUDA, like ``8.7``; several where the profile covers several GPUs.
        dla_cores: deep-learning accelerators of the largest variant; EdgeKit does not use them.
    """

    name: str
    compute_capability: tuple[str, ...]
    dla_cores: int = 0


class Memory(Fact, frozen=True):
    """Main memory.

    Attributes:
        sizes_gb: sizes that are sold, as the maker counts them.
        shared_with_gpu: whether a GPU that runs models works in it.
        bandwidth_gb_s: peak, 10^9 bytes a second, of the fastest variant; None: varies.
    """

    sizes_gb: tuple[int, ...]
    shared_with_gpu: bool
    bandwidth_gb_s: float | None = None


class PowerMode(Fact, frozen=True):
    """A power mode of ``nvpmodel``.

    Attributes:
        variant: of the device, by memory or module; others give the same id to other modes.
        id: as ``nvpmodel -m`` takes it.
        name: as ``nvpmodel -q`` writes it.
        budget_w: power budget in watts; None: not capped.
    """

    variant: str
    id: int
    name: str
    budget_w: int | None = None


class CameraPipeline(Fact, frozen=True):
    """A GStreamer pipeline that ends in an `appsink` with BGR frames.

    Attributes:
        kind: what it reads, like ``csi`` or ``v4l2``.
        gstreamer: text with the placeholders {device}, {width}, {height} and {fps}.
    """

    kind: str
    gstreamer: str


class JetPack(Fact, frozen=True):
    """The libraries of a JetPack release, as `major.minor…`.

    Attributes:
        version: of JetPack.
        jetson_linux: version of Jetson Linux (L4T).
        distribution: name of the distribution that it is made from.
        cuda, tensorrt, cudnn: versions.
        opencv: NVIDIA's build, or None: the distribution's.
    """

    version: str
    jetson_linux: str
    distribution: str
    cuda: str
    tensorrt: str
    cudnn: str
    opencv: str | None = None


class Distribution(Fact, frozen=True):
    """The packages of a Linux distribution, as `major.minor…`.

    Attributes:
        name: with its version.
        python, numpy, opencv: the system's own Python and its packages `python3-…`.
    """

    name: str
    python: str
    numpy: str
    opencv: str


class Target(Fact, frozen=True):
    """What a device is and can do; `source` is its maker's page.

    Attributes:
        title: its name for people.
        architecture: as `uname -m` says it.
        verified: on what this was tried, or that it was not.
        runs: what it can do with each model format, best format first.
    """

    title: str
    architecture: str
    verified: str
    runs: tuple[Support, ...]
    memory: Memory | None = None
    gpu: Gpu | None = None
    power_modes: tuple[PowerMode, ...] = ()
    cameras: tuple[CameraPipeline, ...] = ()
    jetpacks: tuple[JetPack, ...] = ()
    distributions: tuple[Distribution, ...] = ()

    @property
    def formats(self) -> tuple[str, ...]:
        """The model formats it runs, best first."""
        return tuple(support.format for support in self.runs)

    @property
    def has_tensorrt(self) -> bool:
        """Whether one of the family of TensorRT runs ONNX models on it."""
        return any(
            backend.startswith("tensorrt")
            for support in self.runs
            if support.format == "onnx"
            for backend in support.backends
        )

    def precisions(self, format: str) -> tuple[str, ...]:  # noqa: A002
        """Return the precisions it runs `format` in, best first; none for a format unknown to it.

        >>> "int8" in read_target("raspberry-pi-5").precisions("litert")
        True
        """
        return next((s.precisions for s in self.runs if s.format == format), ())


def target_names() -> list[str]:
    """Return the names of all targets, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def read_target(name: str) -> Target:
    """Return the target `name`; `UsageError` names what there is."""
    expect_one_of("target", name, target_names())
    return msgspec.convert(_tables(name), Target)


def _tables(name: str) -> dict[str, Any]:
    """Return a profile's tables, and those it does not have from the profile that it is `like`."""
    tables: dict[str, Any] = msgspec.toml.decode((_FOLDER / f"{name}.toml").read_bytes())
    like = tables.pop("like", None)
    return tables if like is None else _tables(like) | tables
