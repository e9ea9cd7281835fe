"""What is shipped: the wheel built from the sdist, the links, the version."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import pytest

import edgekit

ROOT = Path(__file__).resolve().parent.parent
# At the top only: edgekit/demo is source.
NOT_SOURCE = {".git", ".venv", "build", "dist", "demo", "wheelhouse"}
SHIPPED = (
    *("*.py", "py.typed", "targets/*.toml", "reports/*.j2", "reports/*.js"),
    *("runtime/kernels/*.cu", "runtime/web/page/*"),
)
DEMO = {"edgekit/demo/model.keras", "edgekit/demo/labels.txt"}
DEVELOPMENT_DATA = {".npz", ".npy", ".h5", ".mp4", ".jpg", ".png", ".tflite"}
PYPROJECT = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())


def ignored(folder, names):
    caches = {n for n in names if n == "__pycache__" or n.endswith((".egg-info", "_cache"))}
    return caches | (NOT_SOURCE & set(names) if Path(folder) == ROOT else set())


def setuptools_builds():
    """Whether this environment can build without downloading setuptools."""
    (needed,) = PYPROJECT["build-system"]["requires"]
    try:
        installed = int(version("setuptools").split(".")[0])
    except PackageNotFoundError:
        return False
    return installed >= int(re.fullmatch(r"setuptools>=(\d+)", needed)[1])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the sdist and the wheel that was built from it."""
    pytest.importorskip("build", reason="build is not installed: pip install -e '.[dev]'")
    if not setuptools_builds():
        pytest.skip("setuptools is too old to build without a download: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("packaging")
    tree = shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=ignored)
    out = folder / "dist"
    # Without --sdist or --wheel, build makes the wheel from the unpacked sdist.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_the_package_and_nothing_else(built):
    names = zipfile.ZipFile(built[1]).namelist()
    info = f"edgekit-{edgekit.__version__}.dist-info/"
    source = {
        file.relative_to(ROOT).as_posix()
        for pattern in SHIPPED
        for file in (ROOT / "edgekit").rglob(pattern)
    }
    assert {name for name in names if not name.startswith(info)} == source | DEMO
    assert f"{info}licenses/LICENSE" in names


def test_the_sdist_holds_no_development_data_and_goes_through_no_link(built):
    with tarfile.open(built[0]) as archive:
        members = [member.name.partition("/")[2] for member in archive.getmembers()]
    assert not [name for name in members if Path(name).suffix in DEVELOPMENT_DATA]
    assert not [name for name in members if name.startswith(("converters", "targets", "shared"))]
    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(members)


def test_the_wheel_works_where_the_checkout_is_not(built, tmp_path):
    zipfile.ZipFile(built[1]).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "targets", "--json", "-"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert "x86-cpu" in msgspec.json.decode(done.stdout)


def test_the_command_is_declared(built):
    wheel = zipfile.ZipFile(built[1])
    entry_points = wheel.read(f"edgekit-{edgekit.__version__}.dist-info/entry_points.txt").decode()
    assert "[console_scripts]\nedgekit = edgekit.cli:main\n" in entry_points


@pytest.mark.parametrize("name", ["converters", "targets"])
def test_links_for_people_are_relative_and_resolve(name):
    link = ROOT / name
    if not link.is_symlink():
        pytest.skip(f"{name} is no link here: not a git checkout, or one without symbolic links")
    assert link.readlink() == Path("edgekit") / name
    assert (link / "__init__.py").is_file()


def test_the_versions_agree():
    assert PYPROJECT["project"]["version"] == edgekit.__version__


def test_every_dependency_of_the_test_environment_is_pinned():
    """What CI installs must not change under it, on any Python that we support."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {canonical(line) for line in pins.splitlines() if "==" in line.partition(";")[0]}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"]]
    for extra in ("cpu", "convert", "report", "dev"):
        wanted += extras[extra]
    assert {canonical(requirement) for requirement in wanted} <= pinned


def canonical(requirement):
    name = re.match(r"[A-Za-z0-9._-]*[A-Za-z0-9]", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""
