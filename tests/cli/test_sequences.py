"""Recordings on the command line: from a text to a bundle and through it."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.bundle import MANIFEST, read_bundle
from edgekit.cli import main


@pytest.fixture
def echo(make_bundle):
    """A bundle that takes windows of four steps of two numbers, every second step."""
    return make_bundle(name="echo", precision="fp32", preprocess="hop=2")


@pytest.fixture
def recording(tmp_path):
    """Nine steps of two numbers, with a target."""
    path = tmp_path / "steps.csv"
    lines = [f"{i},{i + 0.5},{i}.25" for i in range(9)]
    path.write_text("\n".join(["x,y,label", *lines]) + "\n")
    return path


def test_a_pipe_of_steps_into_lines_of_results(echo):
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "run", echo, "--source", "-", "--sink", "-"],
        input="".join(f"{i},{-i}\n" for i in range(6)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    values = [json.loads(line)["value"] for line in done.stdout.splitlines()]
    assert values == [[0, 0, 1, -1, 2, -2, 3, -3], [2, -2, 3, -3, 4, -4, 5, -5]]
    assert "standard input" in done.stderr


@pytest.mark.parametrize("order", [1, -1])
def test_one_damaged_recording_of_several_is_no_success(echo, tmp_path, monkeypatch, capsys, order):
    monkeypatch.chdir(tmp_path)
    steps = "".join(f"{i},{-i}\n" for i in range(6))
    Path("good.csv").write_text(steps)
    Path("bad.csv").write_text(f"{steps}1,2,3\n")
    sources = [f"--source={name}" for name in ("good.csv", "bad.csv")[::order]]
    assert main(["run", str(echo), *sources, "--json", "run.json"]) == 2
    assert "not all sources were read to their end: bad.csv, line 7" in capsys.readouterr().err
    errors = {s["source"]: s["error"] for s in json.loads(Path("run.json").read_text())["sources"]}
    assert errors["good.csv"] is None
    assert "line 7 has 3 columns" in errors["bad.csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_on_a_pipe_that_fell_silent(echo, tmp_path, number):
    summary = tmp_path / "run.json"
    words = ["run", echo, "--source", "-", "--sink", "-", "--json", summary]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as child:
        child.stdin.write("1,2\n" * 5)
        assert json.loads(child.stdout.readline())["frame_id"] == 0
        child.send_signal(number)  # the pipe stays open: no end of file helps
        try:
            assert child.wait(60) == 0, child.stderr.read()
        finally:
            child.kill()
    assert json.loads(summary.read_text())["frames"] == 1


def test_a_header_is_said_and_labels_are_left_out(echo, recording, capsys):
    assert main(["run", str(echo), "--source", str(recording)]) == 0
    assert "steps.csv (header: x, y, label)" in capsys.readouterr().out


def test_profile_takes_the_same_text(echo, recording, tmp_path):
    out = tmp_path / "out.json"
    assert main(["profile", str(echo), "--source", str(recording), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["profiles"][0]["runs"] == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2\n3\n", "line 2 has 1 columns; the lines before it have 2"),
        ("1,2\n3,nan\n", "line 2 holds nan; expected finite numbers"),
        ("1,2,3\n" * 9, "gives [3]; the model takes [4, 2], or steps of 2 numbers; if a column"),
        ("1,2\n" * 3, "has 3 steps; the model takes windows of 4: give longer ones"),
        ("", "gave no frame"),
        (None, "no such file"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "profile"])
def test_a_text_that_cannot_be_used_is_one_line_and_2(echo, tmp_path, capsys, verb, text, says):
    path = tmp_path / "bad.csv"
    if text is not None:
        path.write_text(text)
    assert main([verb, str(echo), "--source", str(path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("edgekit: ")
    assert "bad.csv" in line
    assert says in line


def test_a_bundle_of_before_windows_opens_and_has_them(echo, recording):
    manifest = json.loads((echo / MANIFEST).read_text())
    for name in ("window", "hop"):
        del manifest["preprocess"][name]
    (echo / MANIFEST).write_text(json.dumps(manifest))
    with edgekit.open(echo) as model:
        assert [r.value[0] for r in edgekit.stream(str(recording), model)] == [0, 4]


def test_a_window_that_is_not_the_models_is_refused(echo, capsys):
    manifest = json.loads((echo / MANIFEST).read_text())
    manifest["preprocess"]["window"] = 5
    (echo / MANIFEST).write_text(json.dumps(manifest))
    assert main(["inspect", str(echo)]) == 2
    assert "window=5 does not fit the model's input" in capsys.readouterr().err


def test_the_examples_of_the_page_run(echo, tmp_path, monkeypatch, standard_input, capsys):
    """But for those that convert or need labels, which the next test does."""
    page = (Path(__file__).parents[2] / "docs" / "sequences.md").read_text()
    monkeypatch.chdir(tmp_path)
    echo.rename("activity.edgekit")
    readings = np.arange(18, dtype=np.float32).reshape(9, 2)
    np.savez("recordings.npz", x=readings[None])
    np.savetxt("steps.csv", readings, delimiter=",", header="x,y", comments="")
    lines = re.findall(r"^edgekit ((?:run|profile) .*)", page, re.M)
    assert len(lines) == 3
    for line in lines:
        assert main(shlex.split(line)) == 0, line
        if "results.jsonl" in line:
            assert len(Path("results.jsonl").read_text().splitlines()) == 3
    piped = re.search(r"\| edgekit (run .*)", page)[1]
    standard_input(Path("steps.csv").read_text())
    assert main(shlex.split(piped.replace("--sink -", "--sink piped.jsonl"))) == 0
    assert len(Path("piped.jsonl").read_text().splitlines()) == 3
    capsys.readouterr()
    program = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1]
    exec(program, {"read_sensor": lambda: iter(readings)})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1", "2"]


@pytest.mark.convert
def test_a_model_of_windows_from_a_text_to_a_bundle(tmp_path, capsys):
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv1D(4, 2, activation="relu"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 2)), *layers, keras.layers.Dense(2)])
    readings = np.random.default_rng(0).normal(0, 1, (160, 2)) * [5, 500] + [0, 1000]
    lines = [f"{a:.3f},{b:.3f},{'walk' if a > 0 else 'rest'}" for a, b in readings]
    lines.insert(81, "")
    (tmp_path / "set.csv").write_text("\n".join(["a,b,label", *lines]))
    path, data = tmp_path / "out.edgekit", str(tmp_path / "set.csv")
    bundle = edgekit.convert(
        model,
        path,
        precision="int8",
        data=data,
        eval_data=data,
        preprocess="mean=0:1000,std=5:500,hop=1",
    )
    assert bundle.labels == ("rest", "walk")
    assert bundle.manifest.accuracy.n == 154  # of two sequences of 80 steps
    assert bundle.manifest.parity.snr_db > 20
    assert msgspec.structs.asdict(bundle.manifest.preprocess)["hop"] == 1
    x = ((readings[:4] - [0, 1000]) / [5, 500]).astype(np.float32)
    expected = model.predict(x[None], verbose=0)[0]
    with edgekit.open(read_bundle(path)) as opened:
        first = next(iter(edgekit.stream(readings.astype(np.float32), opened)))
        found = opened(readings[:4].astype(np.float32)).raw[0]
    assert first.value[0].label == ("rest", "walk")[int(np.argmax(expected))]
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max() + 0.05
    assert main(["evaluate", str(path), "--data", data]) == 0
    assert "n = 154" in capsys.readouterr().out


@pytest.mark.convert
def test_a_conversion_cannot_read_standard_input(tmp_path, capsys):
    (tmp_path / "model.keras").write_bytes(b"never opened")
    out = str(tmp_path / "out.edgekit")
    arguments = ["convert", str(tmp_path / "model.keras"), "-o", out, "--data", "-"]
    assert main([*arguments, "--precision", "int8"]) == 2
    assert "standard input cannot be read" in capsys.readouterr().err
