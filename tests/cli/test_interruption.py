"""Ctrl-C, SIGTERM and SIGKILL at any time: a clean end, nothing half-written, no stray process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from waiting import LIMIT_S, wait_for

import edgekit
from edgekit.bundle import read_bundle
from edgekit.errors import ModelError
from edgekit.isolated import run_isolated

DEMO = Path(edgekit.__file__).parent / "demo" / "model.keras"


def processes_of(session):
    """Return the processes of a session that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(owner) == session and state != "Z":
            found.append(int(folder.name))
    return found


@contextmanager
def started(*arguments, **options):
    """Run the command line in a session of its own, and let nothing of it outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        for stray in processes_of(process.pid):
            os.kill(stray, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_run_is_0_and_leaves_readable_results(tmp_path, classifier_bundle, number):
    lines, video = tmp_path / "x.jsonl", tmp_path / "x.mp4"
    arguments = ["run", classifier_bundle, "--source", "test://64x48@30", "--json", tmp_path / "j"]
    with started(*arguments, "--sink", lines, "--sink", video) as process:
        enough = lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 5  # noqa: E731
        wait_for(enough, "five results")
        process.send_signal(number)
        output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert "frames per second" in output
    assert "Traceback" not in errors
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    summary = json.loads((tmp_path / "j").read_text())
    assert len(results) == summary["frames"] >= 5
    capture = cv2.VideoCapture(str(video))
    read = 0
    while capture.read()[0]:
        read += 1
    assert read == summary["sinks"][1]["written"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["j", "x.jsonl", "x.mp4"]


def test_ended_profile_of_a_live_source_is_130_and_no_figure(tmp_path, classifier_bundle):
    """Of `run` it is the usual end; a measurement that was cut would look like a whole one."""
    lines, figures = tmp_path / "x.jsonl", tmp_path / "x.json"
    arguments = ["profile", classifier_bundle, "--source", "test://64x48@30", "--duration", 600]
    with started(*arguments, "--sink", lines, "--json", figures) as process:
        enough = lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 5  # noqa: E731
        wait_for(enough, "five results")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, output) == (130, ""), errors
    assert "interrupted" in errors
    assert not figures.exists()


def test_killed_run_leaves_whole_lines(tmp_path, classifier_bundle):
    lines = tmp_path / "x.jsonl"
    with started("run", classifier_bundle, "--source", "test://64x48", "--sink", lines) as process:
        enough = lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 50  # noqa: E731
        wait_for(enough, "fifty results")
        process.kill()
        process.communicate()
    results = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [result["frame_id"] for result in results] == list(range(len(results)))


@pytest.fixture
def conversion(tmp_path, classifier_bundle):
    """Return a function that starts a conversion over an old bundle, with its own TMPDIR."""
    shutil.copytree(classifier_bundle, tmp_path / "out" / "x.edgekit")
    (tmp_path / "tmp").mkdir()

    def start():
        environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
        output = tmp_path / "out" / "x.edgekit"
        return started("convert", DEMO, "-o", output, env=environment)

    return start


def at_work(process):
    """Wait until the converter's own process has begun to load the model's framework."""

    def loading():
        for child in set(processes_of(process.pid)) - {process.pid}:
            try:
                if "_pywrap_tensorflow" in Path(f"/proc/{child}/maps").read_text():
                    return child
            except OSError:
                continue
        return None

    return wait_for(loading, "the converter's process")


def nothing_changed(tmp_path, classifier_bundle):
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["x.edgekit"]
    old = read_bundle(tmp_path / "out" / "x.edgekit")
    assert old.manifest == read_bundle(classifier_bundle).manifest


@pytest.mark.convert
@pytest.mark.parametrize("delay_s", [0.0, 1.5])
def test_ctrl_c_ends_a_conversion_with_130(conversion, tmp_path, classifier_bundle, delay_s):
    with conversion() as process:
        at_work(process)
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it, to all of the group
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "edgekit: interrupted; nothing was left half-written"
        assert "Traceback" not in errors
        assert processes_of(process.pid) == []
    nothing_changed(tmp_path, classifier_bundle)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.convert
def test_ctrl_c_ends_a_training_with_130(tmp_path):
    from edgekit.demo.frames import make_set

    x, y = make_set(40, seed=5)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    (tmp_path / "out").mkdir()
    arguments = ["qat", DEMO, "--data", tmp_path / "set.npz", "--epochs", 1000]
    with started(*arguments, "-o", tmp_path / "out" / "x.keras") as process:
        at_work(process)
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "edgekit: interrupted; nothing was left half-written"
        assert processes_of(process.pid) == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.convert
def test_sigterm_ends_a_conversion_as_ctrl_c_does(conversion, tmp_path, classifier_bundle):
    with conversion() as process:
        at_work(process)
        process.terminate()
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "edgekit: interrupted; nothing was left half-written"
        assert processes_of(process.pid) == []
    nothing_changed(tmp_path, classifier_bundle)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.convert
def test_killed_conversion_takes_its_converter_along(conversion, tmp_path, classifier_bundle):
    with conversion() as process:
        at_work(process)
        process.kill()
        wait_for(lambda: not processes_of(process.pid), "the converter to end")
    nothing_changed(tmp_path, classifier_bundle)


@pytest.mark.convert
def test_killed_converter_is_one_line_and_2(conversion, tmp_path, classifier_bundle):
    with conversion() as process:
        os.kill(at_work(process), signal.SIGKILL)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 2
    assert "its process was ended by signal SIGKILL" in errors.splitlines()[-1]
    nothing_changed(tmp_path, classifier_bundle)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_child_that_cannot_even_start_is_told(tmp_path):
    large = {"text": "x" * 1_000_000}  # more than a pipe holds: it breaks while being written
    with pytest.raises(ModelError, match="working: its process was ended with exit"):
        run_isolated(
            "edgekit.atomic:write_file",
            large,
            what="working",
            environment={"PYTHONHOME": str(tmp_path)},
        )


def test_unwritable_temporary_folder_is_one_line_and_3(tmp_path, classifier_bundle):
    model = Path(__file__).parent.parent / "assets" / "classifier_fp32.tflite"
    script = (
        "import sys, tempfile; tempfile.tempdir = '/proc'; from edgekit.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", model, "-o", tmp_path / "x.edgekit"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("edgekit: ")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
