"""Calibration and evaluation sets: what is read, and what is refused in one clear line."""

import io
import os
import random
import struct
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from edgekit.data import load_data, read_image
from edgekit.errors import DataError

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
FLOATS = np.linspace(-1, 1, 4 * 7, dtype=np.float32).reshape(4, 7)


class Canary:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refused(data, expected):
    """Check that `data` is refused in one line that holds `expected`."""
    with pytest.raises(DataError) as caught:
        load_data(data)
    assert "\n" not in str(caught.value)
    assert expected in str(caught.value)
    return str(caught.value)


def png(width, height):
    """Return a PNG that says it is so large, with next to nothing in it."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture
def images(tmp_path):
    """A folder with two classes of two images each."""
    for index, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(
                str(tmp_path / "images" / name / f"{number}.png"), FRAMES[2 * index + number]
            )
    return tmp_path / "images"


def test_class_folders_give_labels(images):
    data = load_data(images)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert [np.array_equal(sample, frame) for sample, frame in zip(data, FRAMES, strict=True)]
    np.testing.assert_array_equal(data.read(3), FRAMES[3])


def test_hidden_folders_and_files_are_no_data(images):
    (images / ".ipynb_checkpoints").mkdir()
    (images / "cat" / "._0.png").write_bytes(b"what a file manager left")
    assert load_data(images).classes == ("cat", "dog")
    assert len(load_data(images)) == 4


def test_hash_follows_the_content(images):
    before = load_data(images).sha256
    assert load_data(images).sha256 == before
    cv2.imwrite(str(images / "dog" / "1.png"), FRAMES[0])
    assert load_data(images).sha256 != before


def test_arrays_are_rgb_and_samples_bgr(tmp_path):
    np.savez(tmp_path / "d.npz", x=FRAMES, y=np.arange(4))
    data = load_data(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.read(1), FRAMES[1, ..., ::-1])
    assert data.labels.tolist() == [0, 1, 2, 3]


def test_float_arrays_are_taken_as_they_are(tmp_path):
    np.save(tmp_path / "d.npy", FLOATS.astype(np.float64))
    data = load_data(str(tmp_path / "d.npy"))
    np.testing.assert_array_equal(np.stack(list(data)), FLOATS)
    assert data.read(0).dtype == np.float32


def test_names_choose_arrays(tmp_path):
    np.savez(tmp_path / "d.npz", a=FRAMES, b=np.arange(4), classes=np.array(list("wxyz")))
    data = load_data(f"{tmp_path}/d.npz::a,b")
    assert data.labels.tolist() == [0, 1, 2, 3]
    assert data.classes == ("w", "x", "y", "z")
    assert load_data(f"{tmp_path}/d.npz::a").labels is None
    message = refused(f"{tmp_path}/d.npz::a,c", "no array 'c'")
    assert "a, b, classes" in message
    assert "a, b, classes" in refused(f"{tmp_path}/d.npz", "no array 'x'")


def test_labels_follow_the_models_order(tmp_path):
    np.savez(tmp_path / "d.npz", x=FRAMES, y=[0, 1, 1, 0], classes=["dog", "cat"])
    data = load_data(tmp_path / "d.npz")
    assert data.with_labels_of(("bird", "cat", "dog")).labels.tolist() == [2, 1, 1, 2]
    assert data.with_labels_of(()).labels.tolist() == [0, 1, 1, 0]
    with pytest.raises(DataError, match="has classes that the model has not: dog"):
        data.with_labels_of(("bird", "cat"))


def test_pixels_that_do_not_count_stay_so_when_classes_move(tmp_path):
    masks = np.full((4, 2, 2), 255, np.uint8)
    masks[0] = [[0, 1], [1, 0]]
    np.savez(tmp_path / "d.npz", x=FRAMES, y=masks, classes=["dog", "cat"])
    labels = load_data(tmp_path / "d.npz").with_labels_of(("cat", "dog")).labels
    assert labels[0].tolist() == [[1, 0], [0, 1]]
    assert (labels[1:] == 255).all()


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": FRAMES[:0]}, "n at least 1"),
        ({"x": np.uint8(3)}, "shape []"),
        ({"x": np.arange(5, dtype=np.uint8)}, "shape [5]"),
        ({"x": np.zeros((3, 0), np.float32)}, "shape [3, 0]"),
        ({"x": FRAMES.astype(np.complex64)}, "complex64"),
        ({"x": FRAMES > 3}, "bool"),
        ({"x": np.array(["a", "b"])}, "expected uint8 frames, or floats"),
        ({"x": np.where(FLOATS > 0.9, np.nan, FLOATS)}, "NaN or infinity in 1 of 4 samples"),
        ({"x": np.where(FLOATS > 0.9, np.inf, FLOATS)}, "first: sample 3"),
        ({"x": np.full((2, 3), 1e300)}, "NaN or infinity in 2 of 2"),
        ({"x": FRAMES, "y": np.arange(3)}, "one entry for each of the 4 samples"),
        ({"x": FRAMES, "y": np.int64(3)}, "shape []"),
        ({"x": FRAMES, "y": np.array(list("abcd"))}, "expected numbers"),
        ({"x": FRAMES, "y": np.array([1, 2, np.nan, 3])}, "NaN"),
        ({"x": FRAMES, "y": np.arange(4), "classes": np.array(["a", "b"])}, "from 0 to 3"),
        ({"x": FRAMES, "y": np.arange(4) - 1, "classes": np.array(list("abcd"))}, "from -1 to 2"),
        ({"x": FRAMES, "classes": np.array("a")}, "cannot read"),
        ({"z": FRAMES}, "no array 'x'; it has z: choose with d.npz::X,Y"),
        ({}, "it has none"),
    ],
)
def test_arrays_that_make_no_set_are_refused(tmp_path, arrays, expected):
    np.savez(tmp_path / "d.npz", **arrays)
    refused(tmp_path / "d.npz", expected)


@pytest.mark.parametrize("where", ["x", "y", "classes"])
def test_python_objects_in_an_npz_are_never_unpickled(tmp_path, where):
    arrays = {"x": FRAMES, "y": np.arange(4), "classes": np.array(list("abcd"))}
    arrays[where] = np.array([Canary(tmp_path / "pwned")] * 4, object)
    np.savez(tmp_path / "d.npz", **arrays)
    refused(tmp_path / "d.npz", "never unpickled; save it as numbers")
    assert not (tmp_path / "pwned").exists()


def test_python_objects_in_an_npy_are_never_unpickled(tmp_path):
    np.save(tmp_path / "d.npy", np.array([Canary(tmp_path / "pwned")], object))
    refused(tmp_path / "d.npy", "never unpickled")
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_that_is_named_npy_or_npz_is_never_unpickled(tmp_path):
    import pickle

    for name in ("d.npy", "d.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Canary(tmp_path / "pwned")))
        refused(tmp_path / name, "cannot read")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
@pytest.mark.parametrize("damage", ["empty", "cut in half", "without its end", "random bytes"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    good = tmp_path / ("good" + name[1:])
    if name == "d.npz":
        np.savez_compressed(good, x=FRAMES, y=np.arange(4))
    else:
        np.save(good, FRAMES)
    content = good.read_bytes()
    bad = {
        "empty": b"",
        "cut in half": content[: len(content) // 2],
        "without its end": content[:-3],
        "random bytes": random.Random(1).randbytes(500),
    }[damage]
    (tmp_path / name).write_bytes(bad)
    refused(tmp_path / name, f"cannot read {tmp_path / name}: ")


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
@pytest.mark.filterwarnings("ignore")  # numpy's own about headers
def test_flipped_bits_are_refused_or_change_the_hash(tmp_path, name):
    path = tmp_path / name
    if name == "d.npz":
        np.savez_compressed(path, x=FRAMES, y=np.arange(4))
    else:
        np.save(path, FRAMES)
    content = path.read_bytes()
    before = load_data(path)
    draw = random.Random(2)
    refusals = 0
    for _ in range(400):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            data = load_data(path)
        except DataError as error:
            refusals += 1
            assert "\n" not in str(error)
        else:
            assert name == "d.npy" or np.array_equal(data.read(0), before.read(0))
    assert refusals > 10


def test_an_array_that_says_it_is_larger_than_all_memory_is_refused(tmp_path):
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (1 << 45, 4, 4, 3)}
    np.lib.format.write_array_header_1_0(header, description)
    (tmp_path / "d.npy").write_bytes(header.getvalue())
    refused(tmp_path / "d.npy", "cannot read")
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    refused(tmp_path / "d.npz", "cannot read")


@pytest.mark.parametrize("name", ["no.npz", "no/such/folder", "text.txt", "model.keras"])
def test_paths_that_hold_no_set_are_refused(tmp_path, name):
    (tmp_path / "text.txt").write_text("words")
    refused(tmp_path / name, "expected an image folder, .npz, .npy or .csv")


@pytest.mark.parametrize("inside", [(), ("notes.txt",), ("cat/notes.txt", "dog/notes.txt")])
def test_folder_without_images_is_refused(tmp_path, inside):
    for name in inside:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text("words")
    (tmp_path / "d").mkdir(exist_ok=True)
    refused(tmp_path / "d", "holds no images")


def test_folder_named_like_an_image_is_told(images):
    (images / "dog" / "2.png").mkdir()
    refused(images, str(images / "dog" / "2.png"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm"])
@pytest.mark.parametrize("damage", ["empty", "cut in half", "without its end", "random bytes"])
def test_damaged_image_is_told_by_name(tmp_path, suffix, damage):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = cv2.imencode(suffix, picture)[1].tobytes()
    bad = {
        "empty": b"",
        "cut in half": content[: len(content) // 2],
        "without its end": content[:-3],
        "random bytes": random.Random(1).randbytes(500),
    }[damage]
    (tmp_path / "d").mkdir()
    path = tmp_path / "d" / f"a{suffix}"
    path.write_bytes(bad)
    data = load_data(tmp_path / "d")
    with pytest.raises(DataError) as caught:
        list(data)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_picture_of_absurd_size_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(100_000, 100_000))
    with pytest.raises(DataError, match="cannot decode image"):
        read_image(tmp_path / "a.png")


def test_missing_image_is_told(tmp_path):
    with pytest.raises(DataError, match=r"cannot read image .*a.png: No such file"):
        read_image(tmp_path / "a.png")


def test_arrays_and_pairs_in_memory():
    assert len(load_data(FRAMES)) == 4
    assert load_data((FRAMES, np.arange(4))).labels.tolist() == [0, 1, 2, 3]
    refused((FRAMES, np.arange(3)), "one entry for each of the 4 samples")


def test_iterables_are_kept_and_can_be_gone_through_twice():
    data = load_data(iter([FLOATS[0], FLOATS[1]]))
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(data)), FLOATS[:2])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], "gave no samples"),
        (iter(()), "an iterator can be used once only"),
        ([np.array(["a"])], "sample 0 has dtype <U1"),
        ([FLOATS[0], np.zeros((0, 3), np.float32)], "sample 1 has dtype float32 and shape [0, 3]"),
        ([FLOATS[0], FLOATS[0] * np.nan], "sample 1 holds NaN"),
        ([object()], "dtype object"),
        (3, "must be a path, an array or an iterable; got int"),
        (None, "got NoneType"),
    ],
)
def test_objects_that_make_no_set_are_refused(data, expected):
    refused(data, expected)


def test_set_without_labels_says_how_to_give_them():
    with pytest.raises(DataError, match="has no labels; give an array y beside x"):
        load_data(FRAMES).labelled()


def test_a_csv_is_a_set_of_samples_with_labels(tmp_path):
    path = tmp_path / "set.csv"
    path.write_text("a,b,label\n1,2,walk\n3,4,run\n\n5,6,walk\n")
    data = load_data(path)
    assert [sample.tolist() for sample in data] == [[1, 2], [3, 4], [5, 6]]
    assert (data.labels.tolist(), data.classes) == ([1, 0, 1], ("run", "walk"))
    assert (data.name, data.starts) == (str(path), (2,))
    assert load_data(path).sha256 == data.sha256


def test_standard_input_is_a_set(standard_input):
    standard_input("1,2,0\n3,4,1\n")
    data = load_data("-::last")
    assert (len(data), data.labels.tolist(), data.name) == (2, [0, 1], "standard input")


@pytest.mark.parametrize(
    ("text", "says"), [("", "has no steps"), ("1,2\n3,inf\n", "line 2 holds inf")]
)
def test_a_csv_that_cannot_be_used_is_refused(tmp_path, text, says):
    (tmp_path / "set.csv").write_text(text)
    refused(tmp_path / "set.csv", says)
