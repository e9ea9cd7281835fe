"""`edgekit inspect` of .onnx files and of bundles that hold one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")

import onnx
from onnx_graphs import GraphWriter

from edgekit.bundle import read_bundle, write_bundle
from edgekit.cli import main


def clean(graph):
    return graph.model(graph.q(graph.conv(graph.dq(graph.input(dtype=3)))), dtype=3)


def objectionable(graph):
    x = graph.input((None, 8, 16, 16))
    for _ in range(7):
        x = graph.conv(graph.qdq(x, zero=3))
    return graph.model(x)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(clean(GraphWriter()), "clean.onnx")
    onnx.save(objectionable(GraphWriter()), "bad.onnx")
    return tmp_path


def inspect(capsys, *arguments):
    code = main(["inspect", *map(str, arguments)])
    return code, capsys.readouterr()


def test_a_clean_model_is_told_so(place, capsys):
    code, shown = inspect(capsys, "clean.onnx", "--strict")
    assert code == 0
    assert "TensorRT: nothing to object to" in shown.out
    assert "Conv" in shown.out
    assert "1x8x16x16" in shown.out
    assert "int8" in shown.out
    assert "scale 0.05, zero 0" in shown.out
    assert not shown.err


def test_findings_are_shown_and_none_is_repeated_without_end(place, capsys):
    code, shown = inspect(capsys, "bad.onnx")
    assert code == 0
    assert "TensorRT: 8 refused" in shown.out
    assert shown.out.count("zero point 3") == 5
    assert "and 2 more; --json has all" in shown.out
    assert "?x8x16x16" in shown.out


def test_strict_makes_them_a_failed_check(place, capsys):
    code, shown = inspect(capsys, "bad.onnx", "--strict", "--json", "-")
    assert code == 1
    assert shown.err.splitlines()[-1].startswith("edgekit: bad.onnx: TensorRT objects to 8 things")
    written = json.loads(shown.out)
    assert [finding["rule"] for finding in written["findings"]] == (
        ["dynamic-shape"] + ["zero-point"] * 7
    )
    assert written["inputs"][0]["shape"] == [-1, 8, 16, 16]
    assert written["outputs"][0]["shape"] == [-1, 8, 16, 16]  # inferred
    assert written["operators"] == {"DequantizeLinear": 14, "QuantizeLinear": 7, "Conv": 7}


def test_notes_alone_are_no_failed_check(place, capsys):
    graph = GraphWriter(opset=8)
    onnx.save(graph.model(graph.op("Relu", graph.input())), "old.onnx")
    code, shown = inspect(capsys, "old.onnx", "--strict")
    assert code == 0
    assert "TensorRT: 1 note" in shown.out


def test_the_size_counts_the_weights_beside_the_model(place, capsys):
    model = clean(GraphWriter())
    onnx.save(model, "split.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    inspect(capsys, "split.onnx", "--json", "split.json")
    written = json.loads((place / "split.json").read_text())
    files = (place / "split.onnx", place / "w.data")
    assert written["size_bytes"] == sum(file.stat().st_size for file in files)
    assert written["findings"] == []
    assert written["inputs"][0]["scale"] == pytest.approx(0.05)


def test_a_bundle_of_an_onnx_model(place, capsys, classifier_bundle):
    old = read_bundle(classifier_bundle)
    names = [name for name in old.manifest.files if name != old.manifest.model]
    files = {name: (classifier_bundle / name).read_bytes() for name in names}
    files["model.onnx"] = (place / "bad.onnx").read_bytes()
    manifest = msgspec.structs.replace(old.manifest, format="onnx", model="model.onnx")
    bundle = write_bundle(place / "b.edgekit", manifest, files).path
    code, shown = inspect(capsys, bundle, "--json", "b.json")
    assert code == 0
    assert "TensorRT: 8 refused" in shown.out
    written = json.loads((place / "b.json").read_text())
    assert written["bundle"]["format"] == "onnx"
    assert len(written["findings"]) == 8
    assert inspect(capsys, bundle, "--strict")[0] == 1


def test_a_bundle_on_a_device_without_the_package(place, capsys, classifier_bundle, monkeypatch):
    test_a_bundle_of_an_onnx_model(place, capsys, classifier_bundle)
    monkeypatch.setattr("edgekit.cli.inspect.find_spec", lambda name: None)
    code, shown = inspect(capsys, place / "b.edgekit", "--json", "b.json")
    assert code == 0
    assert "classification" in shown.out
    assert "pip install 'edgekit[lint]'" in shown.err
    written = json.loads((place / "b.json").read_text())
    assert written["findings"] is None and written["operators"] == {}


def write_huge():
    with Path("huge.onnx").open("wb") as file:
        file.truncate(1 << 31)  # sparse: takes no room


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("no.onnx", None, "cannot read no.onnx: No such file"),
        ("empty.onnx", lambda: b"", "empty.onnx is not an .onnx file: its 0 bytes"),
        ("text.onnx", lambda: b"words\n", "text.onnx is not an .onnx file"),
        ("zeros.onnx", lambda: bytes(100), "zeros.onnx is not an .onnx file"),
        ("noise.onnx", lambda: np.random.default_rng(0).bytes(999), "is not an .onnx file"),
        ("cut.onnx", lambda: clean(GraphWriter()).SerializeToString()[:500], "is not an .onnx"),
        ("keras.onnx", lambda: b"PK\x03\x04" + bytes(50), "is not an .onnx file"),
        ("folder.onnx", "mkdir", "folder.onnx"),
        ("pipe.onnx", "fifo", "pipe.onnx is not a plain file"),
        ("huge.onnx", "huge", "2147483648 bytes; an .onnx file has 2 GiB at most"),
    ],
)
def test_what_is_no_onnx_file_is_one_clear_line(place, capsys, name, write, words):
    if write == "mkdir":
        Path(name).mkdir()
    elif write == "fifo":
        os.mkfifo(name)
    elif write == "huge":
        write_huge()
    elif write is not None:
        (place / name).write_bytes(write())
    code, shown = inspect(capsys, name)
    assert code == 2
    assert not shown.out
    assert words in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_damaged_name_is_one_clear_line(place, capsys):
    content = (place / "bad.onnx").read_bytes()
    assert b"Conv_10" in content
    (place / "torn.onnx").write_bytes(content.replace(b"Conv_10", b"Conv\xff10"[:7]))
    code, shown = inspect(capsys, "torn.onnx")
    assert code == 2
    assert "the model is damaged" in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_file_that_ends_the_reading_process_is_one_clear_line(place, capsys):
    """A negative dimension, on which onnx 1.23's own shape inference aborts."""
    graph = GraphWriter()
    stored = [graph.constant(np.array(values)) for values in ([0], [8], [2])]
    onnx.save(graph.model(graph.op("Slice", graph.input((1, 8, -5, 16)), *stored)), "m.onnx")
    code, shown = inspect(capsys, "m.onnx")
    assert len(shown.err.splitlines()) <= 1
    if code:  # another release of onnx may survive it
        assert code == 2
        assert "reading m.onnx" in shown.err
    else:
        assert "dynamic-shape" in shown.out


def test_control_characters_of_names_do_not_reach_the_terminal(place, capsys):
    graph = GraphWriter()
    onnx.save(graph.model(graph.op("Det", graph.input((1, 4, 4)), name="\x1b[31m[red]")), "m.onnx")
    code, shown = inspect(capsys, "m.onnx", "--strict")
    assert code == 1
    assert "\x1b" not in shown.out + shown.err
    assert "[red]" in shown.out


def test_without_onnx_the_line_that_installs_it_is_told(place):
    (place / "onnx.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "inspect", "clean.onnx"],
        env={**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 3
    assert "pip install 'edgekit[lint]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_layers_are_told_with_what_they_cost(place, capsys):
    code, shown = inspect(capsys, "clean.onnx", "--layers", "--json", "cost.json")
    assert code == 0
    assert "147,456 MACs, 584 parameters" in shown.out
    (line,) = [line for line in shown.out.splitlines() if " Conv " in line and "1x8x16x16" in line]
    assert line.split()[-2:] == ["147,456", "4.7"]
    cost = json.loads(Path("cost.json").read_text())["cost"]
    assert cost["layers"][0]["read_bytes"] == 8 * 16 * 16 + 8 * 8 * 9 + 4 * 8
    assert shown.out.index("total") < shown.out.index("TensorRT")


def test_layers_of_what_is_not_known_are_a_note(place, capsys):
    graph = GraphWriter()
    onnx.save(graph.model(graph.op("Mine", graph.input(), domain="my.own")), "m.onnx")
    code, shown = inspect(capsys, "m.onnx", "--layers")
    assert code == 0
    assert "note: Mine: not an operator of ONNX's own" in shown.err


def test_without_layers_nothing_is_counted(place, capsys):
    assert inspect(capsys, "clean.onnx", "--json", "cost.json")[0] == 0
    assert json.loads(Path("cost.json").read_text())["cost"] is None
