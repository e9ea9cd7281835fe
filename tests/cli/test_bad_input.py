"""Bad input on the command line: one clear line, the right exit code, nothing half-written."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.cli import main

ASSETS = Path(__file__).parent.parent / "assets"
FRAMES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
TEST = "test://64x48"
DEMO = Path(edgekit.__file__).parent / "demo" / "model.keras"


class Canary:
    """Leaves a folder behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def command(*arguments, **options):
    """Run the real command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def only_line(errors):
    """Return the one line that tells the error; progress and warnings may stand before it."""
    assert "Traceback" not in errors
    lines = errors.splitlines()
    assert [line for line in lines if line.startswith("edgekit: ")] == lines[-1:]
    return lines[-1]


@pytest.fixture
def place(tmp_path, monkeypatch, classifier_bundle):
    """A working folder with a bundle, a model, data, and many files that are none."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(classifier_bundle, "good.edgekit")
    shutil.copy(ASSETS / "classifier_fp32.tflite", "good.tflite")
    np.savez("good.npz", x=FRAMES, y=np.arange(8) % 4)
    Path("empty").write_bytes(b"")
    Path("text").write_text("words\n")
    Path("folder").mkdir()
    return tmp_path


@pytest.fixture
def told(place, capsys):
    """Return a function that runs a line in this process; it gives exit code and error line."""

    def run(line):
        arguments = line if isinstance(line, list) else line.split()
        before = sorted(place.rglob("*"))
        code = main(arguments)
        shown = only_line(capsys.readouterr().err)
        assert sorted(place.rglob("*")) == before, "something was left"
        return code, shown

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nosuchverb", "nosuchverb"),
        ("run", "BUNDLE"),
        ("run good.edgekit", "--source"),
        ("run good.edgekit --source 0 --nosuchoption", "--nosuchoption"),
        ("run no.edgekit --source test://64x48", "no such bundle: no.edgekit"),
        ("run folder --source test://64x48", "folder is no bundle"),
        ("run text --source test://64x48", "text is a file; a bundle is a folder"),
        ("run good.edgekit --source no.mp4", "no such video: no.mp4"),
        ("run good.edgekit --source no.jpg", "no such image: no.jpg"),
        ("run good.edgekit --source no/*.jpg", "holds no images"),
        ("run good.edgekit --source folder", "folder holds no images"),
        ("run good.edgekit --source text", "cannot open video text"),
        ("run good.edgekit --source empty", "cannot open video empty (0 bytes)"),
        ("run good.edgekit --source ftp://x/y", "unknown scheme; available:"),
        ("run good.edgekit --source directshow:x", "unknown scheme; available:"),
        ("run good.edgekit --source gstreamer:", "expected gstreamer:SOURCE"),
        ("run good.edgekit --source csi://front", "expected csi://NUMBER"),
        ("run good.edgekit --source csi://0?fps=0", "fps must be an integer from 1 to 1000"),
        ("run good.edgekit --source test://", "like test://640x480@30"),
        ("run good.edgekit --source test://0x0", "like test://640x480@30"),
        ("run good.edgekit --source test://64x48@0", "like test://640x480@30"),
        ("run good.edgekit --source test://64x48 --sink x.txt", "'x.txt' is not known; available"),
        ("run good.edgekit --source test://64x48 --sink ftp://x", "is not known; available"),
        ("run good.edgekit --source test://64x48 --policy newest", "bounded:N; got 'newest'"),
        ("run good.edgekit --source test://64x48 --backend tpu", "must be one of litert"),
        ("run good.edgekit --source test://64x48 --max-frames 0", "at least 1; got 0"),
        ("run good.edgekit --source test://64x48 --max-frames -1", "at least 1; got -1"),
        ("run good.edgekit --source test://64x48 --max-frames many", "--max-frames"),
        ("run good.edgekit --source test://64x48 --threads 0", "at least 1; got 0"),
        ("run good.edgekit --source test://64x48 --sink - --json -", "both want standard output"),
        ("profile no.edgekit", "no such bundle"),
        ("profile good.edgekit --threads 0", "1 or 1,2,4; got '0'"),
        ("profile good.edgekit --threads 1,,2", "1 or 1,2,4; got '1,,2'"),
        ("profile good.edgekit --threads two", "1 or 1,2,4; got 'two'"),
        ("profile good.edgekit --duration 0", "above 0 s"),
        ("profile good.edgekit --duration nan", "above 0 s"),
        ("profile good.edgekit --runs 0", "`runs` at least 1"),
        ("profile good.edgekit --sink x.jsonl", "needs `source`"),
        ("profile good.edgekit --backend tpu", "must be one of litert"),
        ("evaluate good.edgekit --data no.npz", "no such data: no.npz"),
        ("evaluate good.edgekit --data good.npz --backend x", "`backend` must be one of litert"),
        ("evaluate good.edgekit --data folder", "folder holds no images"),
        ("evaluate good.edgekit --data text", "expected an image folder, .npz, .npy or .csv"),
        ("evaluate good.edgekit --data good.npz::x", "has no labels"),
        ("evaluate good.edgekit --data good.npz::x,z", "no array 'z'; it has x, y"),
        ("evaluate good.edgekit --data good.npz --against no.keras", "no such model: no.keras"),
        ("evaluate good.edgekit --data good.npz --against text", "text is of unknown kind"),
        (
            "evaluate good.edgekit --data good.npz --against folder",
            "a folder without saved_model.pb",
        ),
        ("inspect no.edgekit", "no such bundle"),
        ("inspect no.tflite", "cannot read no.tflite"),
        ("inspect folder", "folder is no bundle"),
        ("inspect text", "expected a bundle NAME.edgekit, a .tflite or an .onnx"),
        ("inspect good.edgekit --strict", "--strict judges .onnx models"),
        ("pack no.edgekit -o x.zip", "no such bundle"),
        ("unpack no.zip -o x.edgekit", "no such file: no.zip"),
        ("unpack text -o x.edgekit", "text is no packed bundle"),
        ("unpack empty -o x.edgekit", "empty is no packed bundle"),
        ("convert no.keras -o x.edgekit", "no such model: no.keras"),
        ("convert good.tflite", "--output"),
        (
            "convert good.tflite -o x.edgekit --precision int4",
            "fp32, fp16, dynamic, int8, int16x8, auto; got",
        ),
        ("convert good.tflite -o x.edgekit --target toaster", "must be one of jetson-agx-orin"),
        ("convert good.tflite -o x.edgekit --task juggling", "classification, segmentation"),
        ("convert good.tflite -o x.edgekit --preprocess magic", "raw, unit, signed"),
        ("convert good.tflite -o x.edgekit --preprocess keras:magic", "must be one of"),
        ("convert good.tflite -o x.edgekit --preprocess unit,speed=1", "no key 'speed'; it has"),
        ("convert good.tflite -o x.edgekit --preprocess unit,scale=1/0", "scale=1/255"),
        ("convert good.tflite -o x.edgekit --preprocess unit,std=0", "above 0"),
        ("convert good.tflite -o x.edgekit --preprocess unit,color=pink", "rgb, bgr, gray"),
        ("convert good.tflite -o x.edgekit --preprocess unit,scale", "got 'scale'"),
        ("convert good.tflite -o x.edgekit --max-drop little", "like 0.5%; got 'little'"),
        ("convert good.tflite -o x.edgekit --max-drop 200%", "0%..100%; got 2.0"),
        ("convert good.tflite -o x.edgekit --max-drop nan", "0%..100%; got nan"),
        ("convert good.tflite -o x.edgekit --input-shape big", "like 1x224x224x3; got 'big'"),
        ("convert good.tflite -o x.edgekit --input-shape 1x0x16x3", "got 1x0x16x3"),
        ("convert good.tflite -o x.edgekit --input-shape 2x16x16x3", "batch 1; got 2x16x16x3"),
        ("convert good.tflite -o x.edgekit --calibration-samples 0", "at least 1; got 0"),
        ("convert good.tflite -o x.edgekit --recipe no.toml", "cannot read recipe no.toml"),
        ("convert good.tflite -o x.edgekit --recipe folder", "folder is no bundle"),
        ("convert good.tflite -o x.edgekit --json x.edgekit", "are both x.edgekit"),
        (["convert", "good.tflite", "-o", "x.edgekit", "--preprocess", ""], "got ''"),
    ],
    ids=str,
)
def test_wrong_use_is_one_line_and_2(told, line, expected):
    code, shown = told(line)
    assert code == 2
    assert expected in shown


# These reach the process that converts.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--precision int8", "int8 needs a calibration set"),
        ("--max-drop 1%", "`max_drop` needs `eval_data`"),
        ("--data no.npz", "no such data: no.npz"),
        ("--labels no.txt", "cannot read labels no.txt: No such file"),
        ("--labels good.npz", "labels good.npz are not UTF-8 text"),
        ("--labels text", "`labels` has 1 names; the model's output has 4"),
        ("--preprocess unit,size=8x8", "is not the model's input 16x16; leave it out"),
        ("--preprocess unit,mean=1:2", "mean has 2 values"),
        ("--input-shape 1x8x8x3", "8"),
        ("--input-shape 1x99999999999999999999x16x3", "99999999999999999999"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_one_line_and_2(told, options, expected):
    code, shown = told(f"convert good.tflite -o x.edgekit {options}")
    assert code == 2
    assert expected in shown


@pytest.mark.parametrize("name", ["x", "x.zip", "folder/x.tflite"])
def test_output_of_another_name_is_one_line_and_2(told, name):
    code, shown = told(f"convert good.tflite -o {name}")
    assert code == 2
    assert f"must be named NAME.edgekit; got '{name}'" in shown


@pytest.mark.parametrize(
    "text",
    [
        b"precision =",
        b"= 3",
        b"precision = 3",
        b'presicion = "int8"',
        b'max_drop = "much"',
        b"input_shape = [1, 2.5]",
        b"\xff\xfe",
        b"data = 1979-05-27",
        b"x = " + b"[" * 100_000,
        b"x = {a=" * 10_000,
    ],
    ids=lambda text: text[:20].decode(errors="replace"),
)
def test_broken_recipe_is_one_line_and_2(told, place, text):
    (place / "r.toml").write_bytes(text)
    code, shown = told("convert good.tflite -o x.edgekit --recipe r.toml")
    assert code == 2
    assert "recipe r.toml cannot be used" in shown


def test_bundle_whose_recipe_is_none_is_one_line_and_2(told, place):
    manifest = json.loads(Path("good.edgekit/bundle.json").read_text())
    for recipe in ({"nonsense": 1}, {"precision": 8}, {"input_shape": "1x2"}):
        Path("good.edgekit/bundle.json").write_text(json.dumps({**manifest, "recipe": recipe}))
        code, shown = told("convert good.tflite -o x.edgekit --recipe good.edgekit")
        assert code == 2
        assert "recipe good.edgekit cannot be used" in shown


@pytest.mark.parametrize("damage", ["empty", "cut in half", "random bytes"])
@pytest.mark.parametrize("verb", ["convert {} -o x.edgekit", "inspect {}"])
def test_damaged_tflite_is_one_line_and_2(told, place, damage, verb):
    content = Path("good.tflite").read_bytes()
    Path("bad.tflite").write_bytes(
        {
            "empty": b"",
            "cut in half": content[: len(content) // 2],
            "random bytes": random.Random(1).randbytes(3000),
        }[damage]
    )
    code, shown = told(verb.format("bad.tflite"))
    assert code == 2
    assert "bad.tflite" in shown


def test_flipped_bits_in_a_tflite_never_show_a_traceback(place, capsys):
    content = Path("good.tflite").read_bytes()
    draw = random.Random(2)
    refusals = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        Path("bad.tflite").write_bytes(damaged)
        code = main(["inspect", "bad.tflite"])
        errors = capsys.readouterr().err
        assert code in (0, 2)
        if code:
            refusals += 1
            assert "bad.tflite" in only_line(errors)
    assert refusals > 10


@pytest.mark.convert
@pytest.mark.parametrize("name", ["bad.keras", "bad.h5"])
@pytest.mark.parametrize("damage", ["empty", "cut in half", "random bytes"])
def test_damaged_keras_model_is_one_line_and_2(told, place, name, damage):
    content = DEMO.read_bytes()
    start = b"PK\x03\x04" if name == "bad.keras" else b"\x89HDF\r\n\x1a\n"
    Path(name).write_bytes(
        {
            "empty": b"",
            "cut in half": content[: len(content) // 2],
            "random bytes": start + random.Random(3).randbytes(5000),
        }[damage]
    )
    code, shown = told(f"convert {name} -o x.edgekit")
    assert code == 2
    assert name in shown


@pytest.mark.convert
def test_flipped_bits_in_a_keras_model_never_show_a_traceback(told, place):
    content = DEMO.read_bytes()
    draw = random.Random(4)
    for _ in range(2):
        damaged = bytearray(content)
        for _ in range(200):
            damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        Path("bad.keras").write_bytes(damaged)
        code, shown = told("convert bad.keras -o x.edgekit")
        assert code == 2
        assert "bad.keras" in shown


@pytest.mark.convert
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "weights without a model"),
        ("[" * 60_000, "nested too deeply"),
    ],
)
def test_hdf5_that_holds_no_model_is_one_line_and_2(told, config, expected):
    h5py = pytest.importorskip("h5py")
    with h5py.File("bad.h5", "w") as file:
        file["numbers"] = list(range(10_000))
        if config is not None:
            file.attrs["model_config"] = config
    code, shown = told("convert bad.h5 -o x.edgekit")
    assert code == 2
    assert expected in shown
    content = Path("bad.h5").read_bytes()
    Path("bad.h5").write_bytes(content[: len(content) // 2])
    code, shown = told("convert bad.h5 -o x.edgekit")
    assert code == 2
    assert "truncated" in shown


@pytest.mark.convert
def test_damaged_saved_model_is_one_line_and_2(told):
    Path("folder/saved_model.pb").write_bytes(random.Random(5).randbytes(500))
    code, shown = told("convert folder -o x.edgekit")
    assert code == 2
    assert "folder" in shown


@pytest.mark.parametrize("name", ["bundle.json", "golden.npz", "labels.txt", "model.tflite"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "link"])
@pytest.mark.parametrize("verb", ["run {} --source test://64x48", "pack {} -o x.zip"])
def test_damaged_bundle_is_one_line_and_2(told, place, name, damage, verb):
    file = Path("good.edgekit", name)
    content = file.read_bytes()
    if damage in ("missing", "link"):
        file.unlink()
    if damage == "link":
        Path("elsewhere").write_bytes(content)
        file.symlink_to(place / "elsewhere")
    elif damage != "missing":
        file.write_bytes(b"" if damage == "empty" else content[:-9])
    code, shown = told(verb.format("good.edgekit"))
    assert code == 2
    assert name in shown


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ('{"format_version": 2, "new": 1}', "install a newer EdgeKit"),
        ('{"ignored": ' + "[" * 100_000, "cannot be read"),
    ],
)
def test_strange_manifest_is_one_line_and_2(place, manifest, expected):
    Path("good.edgekit/bundle.json").write_text(manifest)
    for verb in (["inspect", "good.edgekit"], ["run", "good.edgekit", "--source", TEST]):
        done = command(*verb)
        assert done.returncode == 2
        assert expected in only_line(done.stderr)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": FRAMES[:, None], "y": np.arange(8) % 4}, "got [1, 16, 16, 3]"),
        ({"x": FRAMES[..., :2], "y": np.arange(8) % 4}, "got [16, 16, 2]"),
        ({"x": FRAMES.astype(np.int16), "y": np.arange(8) % 4}, "int16"),
        ({"x": np.full((8, 16, 16, 3), np.nan), "y": np.arange(8) % 4}, "NaN"),
        ({"x": np.zeros((8, 5), np.float32), "y": np.arange(8) % 4}, "got an array [5]"),
        ({"x": FRAMES, "y": np.arange(7)}, "one entry for each of the 8 samples"),
        ({"x": FRAMES, "y": np.zeros((8, 2), int)}, "class indices [n]"),
        ({"x": FRAMES, "y": np.zeros(8)}, "class indices [n]"),
        ({"x": FRAMES, "y": np.arange(8), "classes": np.array(["a", "b"])}, "from 0 to 7"),
        ({"x": FRAMES, "y": np.arange(8) % 2, "classes": np.array(["a", "b"])}, "has not: a, b"),
    ],
)
def test_unusable_arrays_are_one_line_and_2(told, place, arrays, expected):
    np.savez("bad.npz", **arrays)
    code, shown = told("evaluate good.edgekit --data bad.npz")
    assert code == 2
    assert expected in shown


def test_python_objects_are_never_unpickled(told, place):
    np.savez("bad.npz", x=np.array([Canary(place / "pwned")], object))
    np.save("bad.npy", np.array([Canary(place / "pwned")], object))
    for line in (
        "evaluate good.edgekit --data bad.npz",
        "evaluate good.edgekit --data bad.npy",
        "convert good.tflite -o x.edgekit --data bad.npz",
    ):
        code, shown = told(line)
        assert code == 2
        assert "never unpickled" in shown
    assert not Path("pwned").exists()


@pytest.fixture
def pictures(place):
    """A folder of three pictures, of which the second is cut short."""
    for index in range(3):
        cv2.imwrite(f"folder/{index}.jpg", FRAMES[index])
    content = Path("folder/1.jpg").read_bytes()
    Path("folder/1.jpg").write_bytes(content[: len(content) // 2])
    return place / "folder"


def test_broken_picture_in_a_calibration_set_is_told_by_name(told, pictures):
    code, shown = told("convert good.tflite -o x.edgekit --data folder")
    assert code == 2
    assert "folder/1.jpg" in shown


def test_broken_picture_in_a_source_is_dropped_and_counted(place, pictures, capsys):
    arguments = ["run", "good.edgekit", "--source", "folder", "--sink", "x.jsonl", "--json", "j"]
    assert main(arguments) == 0
    assert re.search("dropped: undecodable +1", capsys.readouterr().out)
    summary = json.loads(Path("j").read_text())
    assert (summary["frames"], summary["dropped"]) == (2, 1)
    lines = [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert [line["frame_id"] for line in lines] == [0, 2]


def test_source_of_one_broken_picture_is_one_line_and_2(told, pictures):
    code, shown = told("run good.edgekit --source folder/1.jpg")
    assert code == 2
    assert "folder/1.jpg" in shown
    assert "damaged" in shown


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/dev/video99", "no camera /dev/video99; cameras on this machine:"),
        ("v4l2:///dev/video99", "no camera /dev/video99"),
        ("99", "no camera /dev/video99"),
        ("rtsp://127.0.0.1:9/x", "cannot open rtsp://127.0.0.1:9/x within 1 s"),
        ("http://127.0.0.1:9/x", "check the address, or raise --open-timeout"),
        ("tcp://127.0.0.1:9", "cannot open tcp://127.0.0.1:9"),
    ],
)
def test_camera_that_is_not_there_is_one_line_and_3(told, source, expected):
    code, shown = told(f"run good.edgekit --source {source} --open-timeout 1")
    assert code == 3
    assert expected in shown


@pytest.mark.parametrize("verb", ["run", "profile"])
@pytest.mark.parametrize(
    "source",
    [
        "rtsp://me:pass-word@127.0.0.1:9/live?key=to-ken",
        "http://me:pass/word@127.0.0.1:9/live?key=to-ken",
        "nosuch://me:pass-word@127.0.0.1:9/live?key=to-ken",
    ],
)
def test_credentials_are_never_shown(place, verb, source):
    timeout = ["--open-timeout", "1", "--sink", source] if verb == "run" else []
    for options in (timeout[:2], timeout):
        done = command("--verbose", verb, "good.edgekit", "--source", source, *options)
        assert done.returncode in (2, 3)
        for secret in ("pass", "word", "to-ken"):
            assert secret not in done.stdout + done.stderr


UNWRITABLE = [
    "convert good.tflite -o {}.edgekit",
    "unpack good.zip -o {}.edgekit",
    "pack good.edgekit -o {}.zip",
    "inspect good.edgekit --json {}.json",
    "profile good.edgekit --runs 1 --report {}.html",
    "evaluate good.edgekit --data good.npz --report {}.html",
    "run good.edgekit --source test://64x48 --max-frames 2 --sink {}.jsonl",
    "run good.edgekit --source test://64x48 --max-frames 2 --sink {}.mp4",
    "run good.edgekit --source test://64x48 --max-frames 2 --sink {}.d/",
]


@pytest.mark.parametrize("where", ["/proc/x", "text/x"])
@pytest.mark.parametrize("line", UNWRITABLE)
def test_unwritable_place_is_one_line_and_3(told, capsys, line, where):
    assert main(["pack", "good.edgekit", "-o", "good.zip"]) == 0
    capsys.readouterr()
    code, shown = told(line.format(where))
    assert code == 3
    assert f"cannot write {where}" in shown


@pytest.mark.parametrize("line", [line for line in UNWRITABLE if "/" not in line.split("{}")[1]])
def test_missing_folder_is_one_line_and_3(told, capsys, line):
    assert main(["pack", "good.edgekit", "-o", "good.zip"]) == 0
    capsys.readouterr()
    code, shown = told(line.format("no/x"))
    assert code == 3
    assert "its folder does not exist; make it first" in shown


@pytest.fixture
def mount(place):
    """Return a function that mounts a small file system in memory at `disk`."""
    mounted = []

    def mount_with(options):
        Path("disk").mkdir()
        try:
            line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place / "disk")]
            done = subprocess.run(line, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        mounted.append(place / "disk")

    yield mount_with
    for disk in mounted:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("line", UNWRITABLE)
def test_read_only_file_system_is_one_line_and_3(told, mount, capsys, line):
    mount("ro")
    assert main(["pack", "good.edgekit", "-o", "good.zip"]) == 0
    capsys.readouterr()
    code, shown = told(line.format("disk/x"))
    assert code == 3
    assert "read-only" in shown.lower()


@pytest.mark.parametrize("line", UNWRITABLE[:5])
def test_full_disk_is_one_line_and_3_and_nothing_stays(told, mount, capsys, line):
    mount("size=64k")
    assert main(["pack", "good.edgekit", "-o", "good.zip"]) == 0
    capsys.readouterr()
    full = 64 if "inspect" in line or "report" in line else 56
    Path("disk/filler").write_bytes(bytes(full << 10))
    code, shown = told(line.format("disk/x"))
    assert code == 3
    assert "the disk is full; free space or choose another place" in shown


def test_full_disk_leaves_the_bundle_that_was_there(told, mount):
    mount("size=64k")
    shutil.copytree("good.edgekit", "disk/x.edgekit")
    Path("disk/filler").write_bytes(bytes(28 << 10))
    code, shown = told("convert good.tflite -o disk/x.edgekit")
    assert code == 3
    assert "the disk is full" in shown
    assert read_bundle("disk/x.edgekit").manifest == read_bundle("good.edgekit").manifest


def test_full_disk_leaves_whole_lines(place, mount, capsys):
    mount("size=64k")
    assert main(["run", "good.edgekit", "--source", "test://64x48", "--sink", "disk/x.jsonl"]) == 3
    assert "the disk is full" in only_line(capsys.readouterr().err)
    lines = Path("disk/x.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame_id"] for line in lines] == list(range(len(lines)))
    assert len(lines) > 100


def test_full_disk_leaves_no_broken_video(place, mount, capsys):
    mount("size=64k")
    line = "run good.edgekit --source test://320x240 --max-frames 200 --sink disk/x.mp4"
    assert main(line.split()) == 3
    assert "disk is full" in only_line(capsys.readouterr().err)
    assert not list(Path("disk").iterdir())


@pytest.mark.convert
def test_full_temporary_folder_is_one_line_and_3(place, mount):
    mount("size=64k")
    environment = {**os.environ, "TMPDIR": str(place / "disk")}
    done = command("convert", DEMO, "-o", "x.edgekit", env=environment)
    assert done.returncode == 3
    assert "No space left on device" in only_line(done.stderr)
    assert not Path("x.edgekit").exists()
    assert not list(Path("disk").iterdir())


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_output_that_is_no_bundle_is_left_alone(told, place, kind):
    path = Path("x.edgekit")
    if kind == "folder":
        path.mkdir()
        (path / "precious").write_text("work")
    elif kind == "file":
        path.write_text("work")
    else:
        path.symlink_to("folder")
    for line in ("convert good.tflite -o x.edgekit", "unpack good.zip -o x.edgekit"):
        if "unpack" in line:
            assert main(["pack", "good.edgekit", "-o", "good.zip"]) == 0
        code, shown = told(line)
        assert code == 3
        assert "is no bundle; it is left alone" in shown


def test_missed_budget_is_1_and_writes_nothing(told, place):
    colours = np.zeros((4, 16, 16, 3), np.uint8)
    for index, rgb in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]):
        colours[index] = rgb
    dark = np.random.default_rng(0).integers(0, 3, (16, 16, 16, 3), dtype=np.uint8)
    np.savez("x.npz", dark=dark, x=colours, y=np.arange(4))
    line = "convert good.tflite -o x.edgekit --precision int8 --data x.npz::dark --eval-data x.npz"
    code, shown = told(f"{line} --max-drop 0.5%")
    assert code == 1
    assert "accuracy falls from 100.00 % to" in shown
    assert "x.edgekit was not written" in shown


def test_names_too_long_are_one_line(told):
    for line in (
        f"run {'a' * 300} --source test://64x48",
        f"run {'a' * 300}.edgekit --source test://64x48",
        f"pack good.edgekit -o {'a' * 300}",
        f"inspect good.edgekit --json {'a' * 300}",
        f"unpack {'a' * 300} -o x.edgekit",
        f"convert good.tflite -o {'a' * 300}.edgekit",
    ):
        code, shown = told(line)
        assert code in (2, 3)
        assert "too long" in shown


@pytest.mark.parametrize("destination", ["", ".", "folder", "/"])
def test_json_onto_a_folder_is_one_line_and_3(told, destination):
    code, shown = told(["inspect", "good.edgekit", "--json", destination])
    assert code == 3
    assert "Is a directory" in shown


def test_json_to_a_device_leaves_the_device(place):
    done = command("inspect", "good.edgekit", "--json", "/dev/stdout")
    assert done.returncode == 0
    assert '"operators"' in done.stdout
    assert command("inspect", "good.edgekit", "--json", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()


def test_names_that_are_no_text_are_shown_as_escapes(place):
    name = os.fsdecode(b"b\xffd")
    shutil.copytree("good.edgekit", f"{name}.edgekit")
    done = command("inspect", f"{name}.edgekit", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == f"{name}.edgekit"
    done = command("inspect", f"{name}.tflite\x1b[31m")
    assert done.returncode == 2
    assert only_line(done.stderr).startswith(r"edgekit: cannot inspect b\udcffd.tflite\x1b[31m;")


def test_terminal_that_knows_only_ascii_gets_escapes(place):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("pack", "good.edgekit", "-o", "x.zip", env=environment)
    assert done.returncode == 0, done.stderr
    assert "x.zip" in done.stdout


def test_without_arguments_the_verbs_are_shown_and_2(place):
    done = command()
    assert done.returncode == 2
    assert "convert" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["cv2", "ai_edge_litert"])
def test_missing_package_is_one_line_and_3(place, package):
    # Hides the package as if it were not installed.
    Path("hide").mkdir()
    Path("hide", f"{package}.py").write_text(f"raise ImportError('No module named {package}')")
    environment = {**os.environ, "PYTHONPATH": str(place / "hide")}
    done = command("run", "good.edgekit", "--source", TEST, env=environment)
    assert done.returncode == 3
    assert "pip install 'edgekit[cpu]'" in only_line(done.stderr)
    assert package.replace("_", "-") in done.stderr.replace("_", "-")


def test_what_nobody_foresaw_is_one_line_and_70_and_a_traceback_on_request(place):
    Path("hide").mkdir()
    Path("hide", "cv2.py").write_text("raise RuntimeError('a broken installation')")
    environment = {**os.environ, "PYTHONPATH": str(place / "hide")}
    line = ["run", "good.edgekit", "--source", TEST]
    done = command(*line, env=environment)
    assert done.returncode == 70
    assert "--verbose shows where: RuntimeError: a broken installation" in only_line(done.stderr)
    done = command("--verbose", *line, env=environment)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "a broken installation" in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "targets",
        "targets --json -",
        "inspect good.edgekit --json -",
        "run good.edgekit --source test://64x48 --sink -",
    ],
)
def test_reader_that_leaves_early_ends_the_program_quietly(place, line):
    program = [sys.executable, "-m", "edgekit", *line.split()]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # gone before the first byte
        errors = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert "Traceback" not in errors
    assert "edgekit:" not in errors


def test_reader_that_leaves_after_one_line_has_got_it(place):
    line = ["run", "good.edgekit", "--source", "test://64x48", "--sink", "-", "--sink", "x.mp4"]
    program = [sys.executable, "-m", "edgekit", *line]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        first = json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(60) == 0
    assert first["frame_id"] == 0
    video = cv2.VideoCapture("x.mp4")
    assert video.read()[0]


@pytest.mark.parametrize("line", ["targets", "targets --json -"])
def test_standard_output_on_a_full_disk_is_one_line_and_3(place, line):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", *line.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["", "--verbose"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_no_harm(place, closed, option):
    line = f"{sys.executable} -m edgekit {option} inspect good.edgekit --json {{}} {closed}"
    assert subprocess.run(line.format("x.json"), shell=True).returncode == 0
    assert json.loads(Path("x.json").read_text())["path"] == "good.edgekit"
    assert subprocess.run(line.format("-"), shell=True, stdout=subprocess.PIPE).returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        "run good.edgekit --source in.avi --sink in.avi",
        "run good.edgekit --source file://in.avi --sink in.avi",
        "run good.edgekit --source file://./in.avi#rotate=180 --sink video://in.avi",
        "run good.edgekit --source images://pictures --sink pictures/",
        "run good.edgekit --source pictures/*.png --sink pictures/",
        "run good.edgekit --source pictures/one.png --sink pictures/",
        "run good.edgekit --source test://64x48 --sink jsonl://a.jsonl --sink a.jsonl",
        "run good.edgekit --source test://64x48 --sink a.jsonl --sink ./a.jsonl",
        "run good.edgekit --source test://64x48 --sink a.jsonl --json a.jsonl",
    ],
)
def test_one_file_does_not_serve_twice(told, line):
    Path("pictures").mkdir()
    Path("pictures/one.png").touch()
    code, shown = told(line)
    assert code == 2
    assert "is named twice among source and outputs" in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("evaluate good.edgekit --data good.npz --report good.npz", "`report` and `data`"),
        ("evaluate good.edgekit --data good.npz::x,y --json good.npz", "`json` and `data`"),
        ("evaluate good.edgekit --data no.npz --against text --report text", "and `against`"),
        ("evaluate good.edgekit --data good.npz --report a --json ./a", "`json` and `report`"),
        ("diagnose good.edgekit --data good.npz --json good.npz", "`json` and `data`"),
        ("profile good.edgekit --runs 5 --report a --json a", "`json` and `report`"),
        ("convert good.tflite -o x.edgekit --json good.tflite", "`json` and `model`"),
        ("convert good.tflite -o x.edgekit --labels text --json text", "`json` and `labels`"),
        ("qat text -o x.keras --data good.npz --json text", "`json` and `model`"),
        ("distill text width=1 -o x.keras --data a --teacher text --json text", "`json` and `te"),
    ],
)
def test_no_result_replaces_what_was_given(told, line, expected):
    kept = {path: path.read_bytes() for path in map(Path, ("good.npz", "text", "good.tflite"))}
    code, shown = told(line)
    assert code == 2
    assert expected in shown and "choose another place" in shown
    assert {path: path.read_bytes() for path in kept} == kept
    assert not Path("a").exists()


def test_a_place_for_json_that_is_none_is_told_before_the_work(told):
    code, shown = told("evaluate good.edgekit --data no.npz --json no/x.json")
    assert code == 3 and "no/x.json: its folder does not exist; make it first" in shown
    code, shown = told("diagnose good.edgekit --data no.npz --json folder")
    assert code == 3 and "cannot write folder: it is a folder; name a file" in shown


@pytest.mark.parametrize(
    "line",
    [
        "profile good.edgekit --runs 5 --report good.edgekit/report.html",
        "profile good.edgekit --runs 5 --json good.edgekit/report.json",
        "run good.edgekit --source test://64x48 --max-frames 1 --sink good.edgekit/a.jsonl",
        "run good.edgekit --source test://64x48 --max-frames 1 --sink good.edgekit/",
        "targets --json good.edgekit/labels.txt",
    ],
)
def test_nothing_is_written_into_a_bundle(told, line):
    code, shown = told(line)
    assert code == 3
    assert "lies in a bundle" in shown


def test_a_run_without_results_leaves_old_results(told):
    Path("old.jsonl").write_text("precious\n")
    Path("broken.png").write_bytes(b"no picture")
    code, _ = told("run good.edgekit --source broken.png --sink old.jsonl")
    assert code == 2
    assert Path("old.jsonl").read_text() == "precious\n"


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "1e30"])
@pytest.mark.parametrize("option", ["--open-timeout", "--read-timeout"])
def test_times_that_nobody_can_wait(told, option, seconds):
    code, shown = told(f"run good.edgekit --source test://64x48 {option}={seconds}")
    assert code == 2
    assert "timeout` must be above 0" in shown


def test_images_beside_class_folders(told):
    picture = cv2.imencode(".png", FRAMES[0])[1].tobytes()
    Path("mixed/red").mkdir(parents=True)
    Path("mixed/a.png").write_bytes(picture)
    Path("mixed/red/b.png").write_bytes(picture)
    code, shown = told("evaluate good.edgekit --data mixed")
    assert code == 2
    assert "a.png …) beside folders of images (red" in shown


def test_verbose_stands_before_or_behind_the_verb(place):
    assert main(["--verbose", "targets"]) == main(["targets", "--verbose"]) == 0


def test_a_zip_that_is_no_bundle_gets_no_advice_to_unpack(told):
    with zipfile.ZipFile("model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    code, shown = told("inspect model.keras")
    assert code == 2
    assert "unpack" not in shown
    assert "unpack" not in told("run model.keras --source test://64x48")[1]


@pytest.mark.convert
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot read ranges r.json: No such file"),
        ("", "r.json is no range table"),
        ("words", "r.json is no range table"),
        ("[1]", "r.json is no range table"),
        ('{"origin": "minmax"}', "missing required field `tensors`"),
        ('{"origin": "guess", "tensors": {}}', "Invalid enum value 'guess'"),
        ('{"origin": "minmax", "tensors": {}, "more": 1}', "unknown field `more`"),
        ('{"origin": "minmax", "tensors": {"a": {"min": 0}}}', "missing required field `max`"),
        ('{"origin": "minmax", "tensors": {"a": {"min": NaN, "max": 1}}}', "no range table"),
        ('{"origin": "minmax", "tensors": {"a": {"min": 0, "max": 1e999}}}', "r.json"),
        ('{"origin": "minmax", "tensors": {"a": {"min": 2, "max": 1}}}', "min <= max; got 2.0 to"),
        ('{"origin": "minmax", "tensors": {}, "precisions": {"a": "int4"}}', "value 'int4'"),
        ('{"origin": "minmax", "tensors": {"a": {"min": 0, "max": 1}}}', "does not have (a); it"),
        ('{"origin": "minmax", "tensors": {}, "precisions": {"a": "fp32"}}', "not have (a); it"),
        ('{"origin": "minmax", "steps": ["round"], "tensors": {}}', "say --int8-steps round"),
        ('{"origin": "minmax", "format_version": 9, "tensors": {}}', "r.json is no range table"),
        ('{"origin": "minmax", "tensors": ' + "[" * 9000, "r.json is no range table"),
    ],
)
def test_ranges_that_cannot_be(told, content, expected):
    if content is not None:
        Path("r.json").write_text(content)
    line = "convert good.tflite -o x.edgekit --precision int8 --data good.npz::x --ranges r.json"
    code, shown = told(line)
    assert (code, expected in shown) == (2, True), shown


@pytest.mark.convert
def test_ranges_of_a_bundle_that_has_none(told):
    code, shown = told(
        "convert good.tflite -o x.edgekit --precision int8 --data good.npz::x --ranges good.edgekit"
    )
    assert code == 2 and "has no range table" in shown
