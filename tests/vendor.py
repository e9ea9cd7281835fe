"""NVIDIA's TensorRT-RTX as a judge: parses and builds without a GPU, in a process of its own.

It is proprietary, so nothing of it is in the repository: it is installed into the user's cache when
a test first asks for it. TensorRT-RTX is of the same family as the TensorRT of a Jetson, with the
same ONNX parser, but not the same builder.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "tensorrt-rtx-cu13==1.7.1.116"
CHILD = Path(__file__).with_name("vendor_child.py")
_LACKING = {}  # what pip could not get, and why: without a network it tries for long


@dataclass(frozen=True)
class Layer:
    """One layer of a built engine: what it is, the types it reads, and the ONNX nodes it does."""

    kind: str
    inputs: list[str]
    constants: list[str]
    tactic: str
    nodes: list[str]


@dataclass(frozen=True)
class Verdict:
    """What became of a model; `refused_by`: parse, build, or None: an engine came out."""

    refused_by: str | None
    messages: list[str]
    layers: list[Layer]


class TensorRtRtx:
    def __init__(self, packages):
        self._packages = packages

    def verdicts(self, models, engines=None):
        """Parse and build each .onnx; engines go to the folder `engines`, named NAME.engine."""
        request = {"models": [str(model) for model in models], "engines": engines and str(engines)}
        return [
            Verdict(
                found["refused_by"],
                found["messages"],
                [Layer(**layer) for layer in found["layers"]],
            )
            for found in self.ask(request)
        ]

    def supports(self, operators):
        """Tell for each operator whether the parser knows it."""
        return dict(zip(operators, self.ask({"operators": list(operators)}), strict=True))

    def environment(self, *folders):
        """Return this process's environment, with the packages and `folders` to import from."""
        places = [str(self._packages), *map(str, folders)]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}

    def ask(self, request, child=CHILD, folders=()):
        """Return what the program `child` answers to `request`, both JSON."""
        done = subprocess.run(
            [sys.executable, str(child)],
            input=json.dumps(request),
            env=self.environment(*folders),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])


def tensorrt_rtx():
    """Return the judge, installed if need be; skip where it is not to be had."""
    judge = TensorRtRtx(installed(PACKAGE))
    try:
        judge.supports(["Relu"])
    except AssertionError as error:
        pytest.skip(f"{PACKAGE} does not run here: {str(error).strip().splitlines()[-1]}")
    return judge


def installed(*requirements):
    """Return a folder with these packages and what they need; skip if they are not to be had.

    They are installed into the user's cache, once; the first names the folder.
    """
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    name = f"{requirements[0].replace('==', '-')}-{python}"
    return _by_pip(name, requirements, "install", "--target")


def source_of(package):
    """Return the source archive of a package, kept in the user's cache; skip as `installed`."""
    # pip lets the package name its metadata, with the setuptools that are here.
    command = ["download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest"]
    folder = _by_pip(f"{package.replace('==', '-')}-source", [package], *command)
    return next(folder.glob("*.tar.gz"))


def _by_pip(name, requirements, *command):
    """Return the folder `name` of the cache, filled by pip; its path ends the command."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit-tests"
    try:
        if name not in _LACKING and not (cache / name).is_dir():
            _fill(cache / name, requirements, command)
    except OSError as error:
        _LACKING[name] = str(error)
    if name in _LACKING:
        pytest.skip(f"{' '.join(requirements)} cannot be installed: {_LACKING[name]}")
    return cache / name


def _fill(packages, requirements, command):
    packages.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=packages.parent) as folder:
        target = Path(folder) / "packages"
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input",
             *command, str(target), *requirements],
            capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode != 0:
            _LACKING[packages.name] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        elif not packages.is_dir():  # another test run may have been faster
            target.rename(packages)
