"""`edgekit doctor` and `edgekit targets --here` on the command line."""

import json
import subprocess
import sys

import pytest

from edgekit.cli import doctor as verb
from edgekit.cli import main
from edgekit.doctor.machine import OpencvAnswer, User


@pytest.fixture
def on(fake, monkeypatch):
    """Return a function that lets the command run on that fake machine, and gives it."""

    def put(name, change=lambda machine: None):
        machine = fake(name)
        change(machine)
        monkeypatch.setattr(verb, "this_machine", machine.machine)

    return put


def test_a_healthy_machine_exits_with_0(on, capsys):
    on("jetpack_6")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr()
    assert "doctor: jetson-orin-nano: 0 faults, 0 warnings, 0 notes" in shown.out
    assert shown.err == ""


def test_warnings_alone_exit_with_0(on, capsys):
    on("trixie", lambda machine: setattr(machine, "user", User("me", 1000, frozenset())))
    assert main(["doctor"]) == 0
    assert "sudo usermod -aG video me" in " ".join(capsys.readouterr().out.split())


def test_a_fault_exits_with_1_and_one_line(on, capsys):
    on("debian", lambda m: setattr(m, "opencv", OpencvAnswer(failure="[bold]by signal 11")))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "[bold]by signal 11" in " ".join(shown.out.split())
    assert shown.err.splitlines() == [
        "edgekit: does not work here: opencv.import; the table says what mends it"
    ]


def test_a_remedy_stands_on_a_line_of_its_own(on, capsys):
    on("bookworm", lambda machine: machine.install("tflite_runtime", "2.14.0"))
    assert main(["doctor"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "→ pip uninstall tflite-runtime" in lines


def test_json_on_standard_output_is_nothing_else_even_with_faults(on, capsys):
    on("debian", lambda machine: setattr(machine, "opencv", OpencvAnswer(failure="broken")))
    assert main(["doctor", "--json", "-"]) == 1
    written = json.loads(capsys.readouterr().out)
    assert written["machine"]["target"] == "x86-cpu"
    assert [f["check"] for f in written["findings"] if f["severity"] == "fault"] == [
        "opencv.import"
    ]


def test_here_says_which_target_this_is(capsys):
    assert main(["targets", "--here", "--json", "-"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert f"this machine: {found['target'] or 'none of the targets'}" in shown.err
    assert found["because"] in shown.err


def test_here_and_a_name_contradict_each_other(capsys):
    assert main(["targets", "jetson-orin-nano", "--here"]) == 2
    assert capsys.readouterr().err.startswith("edgekit: give NAME or --here, not both")


def test_the_table_of_targets_has_a_line_for_each_format(capsys):
    assert main(["targets"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "litert: litert" in lines


def test_a_place_that_cannot_be_written_is_one_line(on, capsys):
    on("debian")
    assert main(["doctor", "--json", "/nowhere/out.json"]) == 3
    assert "/nowhere" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("verb_", [["doctor"], ["targets", "--here"]])
def test_they_load_neither_opencv_nor_an_engine(verb_):
    code = (
        "import sys\nfrom edgekit.cli import main\n"
        f"main({verb_!r})\n"
        "heavy = {'cv2', 'ai_edge_litert', 'onnxruntime', 'openvino', 'tensorflow', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
