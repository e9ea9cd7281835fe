"""`edgekit distill`: what it takes, what it writes, and how it ends."""

import json

import numpy as np
import pytest
from test_json import check

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.cli import main  # noqa: E402

layers = keras.layers


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with a teacher and a labelled set, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    x = keras.Input((6,), name="x")
    hidden = layers.Dense(8, "relu", name="hidden")(x)
    keras.Model(x, layers.Dense(3, name="answer")(hidden)).save("teacher.keras")
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (40, 6)).astype("float32")
    np.savez("set.npz", x=x, y=x[:, :3].argmax(1))
    return tmp_path


def test_it_distils_in_a_process_of_its_own_and_writes_a_narrower_network(place, capsys):
    line = (
        "distill teacher.keras --teacher teacher.keras --student width=0.5 --data set.npz "
        "--epochs 1 --hint hidden=hidden --class-weights 0=1,2=2.5 -o out.keras --json -"
    )
    assert main(line.split()) == 0
    captured = capsys.readouterr()
    written = json.loads(captured.out)
    check("distill", written)
    assert written["parameters"] < written["teacher_parameters"]
    assert "accuracy of the teacher, n = 4" in captured.err
    assert "teacher teacher.keras answers with logits" in captured.err
    student = keras.saving.load_model("out.keras")
    assert student.get_layer("hidden").units == 4 and not student.compiled
    assert sorted(path.name for path in place.iterdir()) == [
        "out.keras",
        "set.npz",
        "teacher.keras",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "either STUDENT, a .keras file, or --student width=0.5"),
        ("teacher.keras --student width=0.5", "either STUDENT"),
        ("no.keras", "no such student: no.keras"),
        ("--student half", "like width=0.5; got 'half'"),
        ("width=0.5 --teacher no.keras", "no such teacher: no.keras"),
        ("width=0.5 --hint hidden", "`hint` must be THEIR_LAYER=OUR_LAYER; got 'hidden'"),
        ("width=0.5 --class-weights 0=much", "with numbers; got '0=much'"),
        ("width=0.5 --json out.keras", "`json` and `output` are both out.keras"),
        ("width=0.5 --epochs few", "few"),
    ],
)
def test_wrong_use_is_told_before_the_work(place, capsys, options, message):
    line = f"distill teacher.keras {options} --data set.npz -o out.keras"
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err
    assert not (place / "out.keras").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("teacher.keras --data set.npz --scheme onnx -o out.keras", 2, "litert, tensorrt"),
        ("teacher.keras --data set.npz -o no/out.keras", 3, "its folder does not exist"),
    ],
)
def test_what_the_work_finds_is_one_line_too(place, capsys, options, code, message):
    assert main(f"distill teacher.keras {options}".split()) == code
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edgekit: ")]
    assert len(shown) == 1 and message in shown[0]
    assert not (place / "out.keras").exists()
