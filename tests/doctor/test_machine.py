"""What the doctor sees of this Python, and what it is told by a process that imports OpenCV."""

import sys

import pytest

from edgekit.doctor import machine as module
from edgekit.doctor.machine import ask_opencv, this_machine


@pytest.fixture
def other_opencv(tmp_path, monkeypatch):
    """Return a function that puts a module cv2 with that code before any other."""

    def put(code):
        (tmp_path / "cv2.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_this_machine_sees_its_packages_without_importing_them(tmp_path, monkeypatch):
    seen = this_machine()
    assert seen.python.version == sys.version_info[:3]
    assert {"msgspec", "numpy"} <= {package.name for package in seen.packages}
    assert seen.module("msgspec") in sys.path
    assert seen.module("no_such_module") is None
    assert (seen.module("cv2") is None) == (seen.opencv is None)
    assert seen.disks


def test_it_works_where_the_folder_it_was_started_in_has_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert this_machine().probe.architecture


def test_opencv_tells_its_version_and_build(other_opencv):
    other_opencv(
        "__version__ = '4.8.0'\ndef getBuildInformation(): return '  GStreamer:   YES (1.20.3)\\n'"
    )
    answer = ask_opencv()
    assert (answer.version, answer.failure) == ("4.8.0", "")
    assert answer.build.startswith("  GStreamer:   YES")


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os; os.kill(os.getpid(), 11)", "importing it ended the process by signal 11"),
        ("raise ImportError('libGL.so.1: cannot open')", "ImportError: libGL.so.1: cannot open"),
        ("import os; os._exit(3)", "importing it failed"),
        ("raise SystemExit('\\033[31m\\nbad')", "bad"),
        ("raise ImportError(chr(27) + 'x')", "ImportError:  x"),
        ("pass", "AttributeError: module 'cv2' has no attribute '__version__'"),
    ],
)
def test_an_opencv_that_fails_is_told_in_a_line(other_opencv, code, failure):
    other_opencv(code)
    answer = ask_opencv()
    assert (answer.version, answer.failure) == ("", failure)


def test_an_opencv_that_hangs_is_given_up(other_opencv, monkeypatch):
    monkeypatch.setattr(module, "_CHILD_LIMIT_S", 0.5)
    other_opencv("import time; time.sleep(60)")
    assert ask_opencv().failure == "importing it took more than 0.5 s"


def test_a_python_that_cannot_be_started_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "/nowhere/python cannot be started" in ask_opencv().failure
