"""The machine that the checks look at: its files, and what this Python sees of it."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgekit.targets.files import SystemFiles, plain
from edgekit.targets.probe import Probe, probe

_CHILD_LIMIT_S = 60  # a cold import of OpenCV from an SD card takes some ten
_ASK_OPENCV = (
    "import sys, cv2; sys.stdout.reconfigure(errors='replace'); "
    "print(cv2.__version__, cv2.getBuildInformation(), sep='\\n')"
)


@dataclass(frozen=True)
class Package:
    """An installed distribution: its name, normalised, version, and the folder it lies in."""

    name: str
    version: str
    folder: str


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs.

    Attributes:
        version: major, minor, micro.
        prefix: folder of its environment.
        base_prefix: folder of the Python that the environment was made from.
        path: folders that modules are imported from, first wins.
        bits: size of a pointer.
        libc: ``glibc`` and version, like ``glibc 2.36``; "" for another C library.
    """

    version: tuple[int, int, int]
    prefix: str
    base_prefix: str
    path: tuple[str, ...]
    bits: int
    libc: str

    @property
    def minor(self) -> str:
        """`major.minor`."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def is_venv(self) -> bool:
        """Whether this is a virtual environment."""
        return self.prefix != self.base_prefix

    @property
    def is_system(self) -> bool:
        """Whether it is, or was made from, the distribution's Python."""
        return self.base_prefix == "/usr"

    @property
    def system_folders(self) -> tuple[str, str]:
        """Where the distribution's packages put modules, whether they are imported or not."""
        return "/usr/lib/python3/dist-packages", f"/usr/lib/python{self.minor}/dist-packages"


@dataclass(frozen=True)
class User:
    """Who runs this: name, and the numbers of the groups of this login."""

    name: str
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True)
class Node:
    """A device node: path, permission bits, owner and group."""

    path: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Disk:
    """A file system: what EdgeKit writes there, the folder, free bytes for this user."""

    use: str
    folder: str
    free_bytes: int
    writable: bool


@dataclass(frozen=True)
class OpencvAnswer:
    """What a process that imports OpenCV says: its version and build, or why it failed."""

    version: str = ""
    build: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Machine:
    """All that the checks look at; tests make it of fake trees.

    Attributes:
        groups: name of each group of the system by number.
        opencv: None where there is no cv2 to be imported.
    """

    files: SystemFiles
    probe: Probe
    python: Interpreter
    environment: Mapping[str, str]
    user: User
    groups: Mapping[int, str]
    nodes: tuple[Node, ...]
    disks: tuple[Disk, ...]
    opencv: OpencvAnswer | None

    @cached_property
    def packages(self) -> tuple[Package, ...]:
        """The installed distributions, in the order in which imports find them."""
        return tuple(p for folder in self.python.path for p in packages_in(self.files, folder))

    def package(self, *names: str) -> Package | None:
        """Return the first of these distributions that is installed, as imports would find it."""
        return next((p for name in names for p in self.packages if p.name == name), None)

    def module(self, name: str) -> str | None:
        """Return the folder that `import name` takes the module from, or None."""
        return next((f for f in self.python.path if has_module(self, f, name)), None)

    def system_module(self, name: str) -> str | None:
        """Return the folder of the distribution's module `name`, imported or not, or None."""
        return next((f for f in self.python.system_folders if has_module(self, f, name)), None)


def has_module(machine: Machine, folder: str, name: str) -> bool:
    """Return whether `folder` holds a package, module or extension `name` for this Python."""
    major, minor, _ = machine.python.version
    tag = f"cpython-{major}{minor}"
    if machine.files.is_there(f"{folder}/{name}/__init__.py"):
        return True
    return any(
        found == f"{name}.py" or re.fullmatch(rf"{name}(\.{tag}[\w-]*|\.abi3)?\.so", found)
        for found in machine.files.names(folder)
    )


def packages_in(files: SystemFiles, folder: str) -> Iterator[Package]:
    """Yield the distributions in a folder, by the names of their metadata; none is read."""
    for name in files.names(folder):
        found = re.fullmatch(r"([\w.]+)-(\d[\w.!+]*)(?:-py3[\w.-]*)?\.(?:dist|egg)-info", name)
        if found:
            yield Package(re.sub(r"[-_.]+", "-", found[1]).lower(), found[2], folder)


def this_machine() -> Machine:
    """Return the machine that this runs on; starts a process that imports OpenCV."""
    files = SystemFiles()
    libc, libc_version = platform.libc_ver()
    machine = Machine(
        files=files,
        probe=probe(files),
        python=Interpreter(
            version=sys.version_info[:3],
            prefix=sys.prefix,
            base_prefix=sys.base_prefix,
            path=tuple(dict.fromkeys(folder for folder in sys.path if folder)),
            bits=8 * struct.calcsize("P"),
            libc=f"{libc} {libc_version}" if libc == "glibc" else "",
        ),
        environment=dict(os.environ),
        user=_user(),
        groups={group.gr_gid: group.gr_name for group in grp.getgrall()},
        nodes=tuple(_nodes(files)),
        disks=tuple(_disks()),
        opencv=None,
    )
    return machine if machine.module("cv2") is None else replace(machine, opencv=ask_opencv())


def ask_opencv() -> OpencvAnswer:
    """Return what OpenCV says of itself, asked in a process of its own: a broken one can crash."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_OPENCV],
            cwd="/",  # not our own: Python imports from there first
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHILD_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return OpencvAnswer(failure=f"importing it took more than {_CHILD_LIMIT_S} s")
    except OSError as error:
        return OpencvAnswer(failure=f"{sys.executable} cannot be started: {error.strerror}")
    if done.returncode < 0:
        return OpencvAnswer(failure=f"importing it ended the process by signal {-done.returncode}")
    if done.returncode > 0:
        # NumPy explains at length why it refuses a module; what went wrong is at the end.
        lines = plain(done.stderr).strip().splitlines()
        return OpencvAnswer(failure=lines[-1].strip() if lines else "importing it failed")
    version, _, build = plain(done.stdout).partition("\n")
    return OpencvAnswer(version=version.strip(), build=build)


def _user() -> User:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container that runs as a number
        name = str(uid)
    return User(name, uid, frozenset({*os.getgroups(), os.getegid()}))


def _nodes(files: SystemFiles) -> Iterator[Node]:
    """Yield the nodes of cameras and GPUs."""
    for name in files.names("/dev"):
        if re.fullmatch(r"video\d+|nvmap|nvidia\d+|nvidiactl|nvidia-uvm", name):
            try:
                status = files.place(f"/dev/{name}").stat()
            except OSError:
                continue
            yield Node(f"/dev/{name}", status.st_mode & 0o777, status.st_uid, status.st_gid)


def _disks() -> Iterator[Disk]:
    """Yield the file systems that EdgeKit writes to, each once."""
    home = os.environ.get("HOME", "/root")
    seen = set()
    for use, folder in (
        ("the working folder", "."),
        ("caches", os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache"),
    ):
        try:
            absolute = Path(folder).absolute()
            place = next(p for p in (absolute, *absolute.parents) if p.exists())
            device, free_bytes = place.stat().st_dev, shutil.disk_usage(place).free
        except OSError:  # the working folder is gone, or the folder is not for us to see
            continue
        writable = os.access(place, os.W_OK)
        if (device, writable) not in seen:
            seen.add((device, writable))
            yield Disk(use, str(place), free_bytes, writable)
