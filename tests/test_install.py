"""Installing on devices: every extra has wheels for aarch64, and a wheelhouse needs no network."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("pip", reason="no pip in this environment: python -m ensurepip")

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["project"]
PIP_FOR = ROOT / "ci" / "pip_for.py"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# What no device installs, and what has no wheel for aarch64 (docs/install.md): pycuda is built from
# source against the device's CUDA, TensorRT-RTX is for x86-64.
NOT_ON_DEVICES = {"convert", "dev", "jetson", "rtx"}
ON_DEVICES = PYPROJECT["optional-dependencies"].keys() - NOT_ON_DEVICES
NO_NETWORK = re.compile(r"connection broken by .*")


def run(*command, **options):
    """Run a command; return its exit code and all that it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        **options,
    )
    return done.returncode, done.stdout


def skip_without_network(code, output):
    if code == 0:
        return
    if os.environ.get("PIP_NO_INDEX"):
        pytest.skip("PIP_NO_INDEX keeps pip from every package index")
    if told := NO_NETWORK.search(output):
        pytest.skip(f"pip reaches no package index: {told[0]}")


def resolve(python, constraints, folder, requirements):
    """Resolve for aarch64 without installing; return pip's exit code, output and choice."""
    report = folder / "report.json"
    dry = ["install", "--dry-run", "--ignore-installed", "--target", folder / "nowhere"]
    options = ["--retries", "1", "--report", report, "--constraint", constraints]
    code, output = run(
        sys.executable, PIP_FOR, python, "aarch64", *dry, *options, *sorted(requirements)
    )
    skip_without_network(code, output)
    chosen = json.loads(report.read_bytes())["install"] if code == 0 else []
    versions = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in chosen}
    return code, output, versions


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_every_extra_of_a_device_has_wheels_for_aarch64(python, tmp_path):
    wanted = set(PYPROJECT["dependencies"])
    for extra in ON_DEVICES:
        wanted |= set(PYPROJECT["optional-dependencies"][extra])
    code, output, versions = resolve(python, ROOT / "constraints.txt", tmp_path, wanted)
    assert code == 0, output
    assert {"ai-edge-litert", "numpy", "onnxruntime"} <= versions.keys()
    # Markers are asked of the target's Python, not of the one that runs pip.
    assert ("tomli" in versions) == (python == "3.10")
    # Up to 3.12 the boards' own OpenCV was built for numpy 1.
    assert versions["numpy"].startswith("2." if python == "3.13" else "1.")
    assert not (ROOT / "nowhere").exists()


@pytest.mark.slow
def test_a_pin_without_a_wheel_for_aarch64_is_found(tmp_path):
    (tmp_path / "pins.txt").write_text("ai-edge-litert==1.0.1\n")
    code, output, _ = resolve("3.13", tmp_path / "pins.txt", tmp_path, ["ai-edge-litert"])
    assert code != 0
    assert "ai-edge-litert==1.0.1" in output, output


@pytest.mark.slow
def test_a_wheelhouse_installs_without_a_network(tmp_path):
    """The same as for a board, for the machine that runs the test."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = platform.machine()
    code, output = run(
        "make",
        "wheelhouse",
        f"PYTHON={sys.executable}",
        f"WHEELHOUSE={tmp_path}",
        f"WHEELHOUSE_MACHINE={machine}",
        f"WHEELHOUSE_PYTHONS={python}",
        "WHEELHOUSE_EXTRAS=cpu",
        cwd=ROOT,
    )
    skip_without_network(code, output)
    assert code == 0, output
    environment, folder = tmp_path / "venv", tmp_path / f"cp{python.replace('.', '')}-{machine}"
    assert run(sys.executable, "-m", "venv", environment)[0] == 0
    offline = ["--isolated", "install", "--no-index", "--find-links", folder, "edgekit[cpu]"]
    nowhere = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": ""}
    code, output = run(environment / "bin" / "pip", *offline, env=nowhere)
    assert code == 0, output
    model = ROOT / "tests" / "assets" / "classifier_int8.tflite"
    code, output = run(environment / "bin" / "edgekit", "inspect", model, env=nowhere, cwd=tmp_path)
    assert code == 0, output
    assert "int8" in output


@pytest.mark.parametrize("words", [(), ("3.10", "aarch64"), ("cp310", "aarch64", "download")])
def test_wrong_use_of_pip_for_is_told(words):
    code, output = run(sys.executable, PIP_FOR, *words)
    assert code == 2
    assert output.startswith("usage: pip_for.py PYTHON MACHINE COMMAND")
