"""One step a line: what is read, and what is refused with the number of the line."""

import os

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.rows import RowReader, read_table


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(content, name="steps.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def rows(source):
    with RowReader(source) as reader:
        return [(row.numbers, row.label, row.starts_sequence) for row in reader]


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "1,2\r\n3,4",
        "\ufeff1,2\n3,4\n",
        "1;2\n3;4\n",
        "1\t2\n3\t4\n",
        "# from a sensor\n1, 2\n3, 4\n",
        "x,y\n1,2\n3,4\n",
        '"x, left",y\n"1",2\n3,4\n',
        "[1, 2]\n[3.0, 4e0]\n",
        "1,2\n[3,4]\n",
    ],
)
def test_the_same_two_steps_in_every_spelling(write, text):
    assert rows(write(text)) == [([1, 2], None, True), ([3, 4], None, False)]


def test_a_blank_line_ends_a_sequence(write):
    found = rows(write("x\n1\n2\n\n  \n3\n4\n\n"))
    assert [starts for _, _, starts in found] == [True, False, True, False]


def test_a_header_is_told_by_its_names(write):
    with RowReader(write("ax,ay,az\n1,2,3\n")) as reader:
        assert reader.description == reader.name  # nothing is read before it is asked for
        next(reader)
        assert reader.header == ("ax", "ay", "az")
        assert reader.description.endswith("steps.csv (header: ax, ay, az)")


def test_the_columns_of_a_wide_header_are_not_all_said(write):
    names = ",".join(f"c{i}" for i in range(50))
    with RowReader(write(f"{names}\n" + ",".join("1" * 50) + "\n")) as reader:
        next(reader)
        assert reader.description.endswith("(header: c0, c1, c2, c3, c4, c5, …)")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("a,b,label\n1,2,walk\n", ""),
        ("label,a,b\nwalk,1,2\n", ""),
        ("0,1,label\n1,2,walk\n", ""),  # as pandas names columns without names
        ("a,what,b\n1,walk,2\n", "::what"),
        ("a,b,what\n1,2,walk\n", "::last"),
        ("1,2,walk\n", "::last"),
    ],
)
def test_the_column_of_labels_is_no_feature(write, text, choice):
    assert rows(write(text) + choice) == [([1, 2], "walk", True)]


@pytest.mark.parametrize(
    ("text", "y", "classes"),
    [
        ("1,2\n1,0\n", [2, 0], ()),
        ("1,0.5\n1,2\n", [0.5, 2], ()),
        ("1,run\n1,go\n1,run\n", [1, 0, 1], ("go", "run")),
        ("[1, 3]\n[1, 4]\n", [3, 4], ()),
    ],
)
def test_labels_are_classes_targets_or_names(write, text, y, classes):
    table = read_table(write(text) + "::last")
    assert (table.y.tolist(), table.classes) == (y, classes)
    assert table.y.dtype == (np.float32 if 0.5 in y else np.int64)


def test_a_table_knows_where_its_sequences_start(write):
    table = read_table(write("1,2\n3,4\n\n5,6\n"))
    assert table.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (table.x.dtype, table.y, table.starts) == (np.float32, None, (2,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2\n3\n", "line 2 has 1 columns; the lines before it have 2"),
        ("a,b\n1,2,3\n", "line 2 has 3 columns; the lines before it have 2"),
        ("1,2\n3,nan\n", "line 2 holds nan; expected finite numbers"),
        ("1,2\n3,1e39\n", "line 2 holds 1e39; expected finite numbers"),
        ("1,2\n3,\n", "line 2 holds '', which is no number"),
        ("1,2\n\n# more\n3,x\n", "line 4 holds 'x', which is no number"),
        ("1,2\n3;4\n", "line 2 has 1 columns"),
        ('1,2\n3,"4\n', "line 2 is no CSV"),
        ("[1, 2\n", "line 1 is no JSON array of numbers"),
        ('[1, "2"]\n', "line 1 is no JSON array of numbers"),
        ("[1, null]\n", "line 1 is no JSON array of numbers"),
        ("[[1, 2]]\n", "line 1 is no JSON array of numbers"),
        ("[1, 1" + "0" * 400 + "]\n", "line 1 "),
        ("[]\n[1]\n", "line 1 has no numbers"),
        (b"1,2\n\xff\xfe,3\n", "line 2 is not UTF-8 text"),
        (b"\x00\x01\x02,1\n", "line 1 "),  # Python 3.10 refuses the zero, later ones the text
        (b"9" * (17 << 20), "line 1 is longer than 16 MiB"),
    ],
    ids=range(17),
)
def test_a_line_that_cannot_be_read_is_named(write, text, says):
    with pytest.raises(DataError) as caught:
        rows(write(text))
    assert f"steps.csv, {says}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "choice", "says"),
    [
        ("a,b\n1,2\n", "::c", "no column 'c' for labels; it has a, b"),
        ("1,2\n", "::c", "no column 'c' for labels; it has no header line"),
        ("1,2,\n", "::last", "line 1 has no label"),
        ("", "", "has no steps"),
        ("a,b\n", "", "has no steps"),
        ("label\nwalk\n", "", "line 2 has no numbers"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(write, text, choice, says):
    with pytest.raises(DataError, match=says):
        read_table(write(text) + choice)


def test_files_that_are_not_there_or_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"away\.csv: no such file"):
        RowReader(str(tmp_path / "away.csv"))
    with pytest.raises(DataError, match="Is a directory"):
        RowReader(str(tmp_path))


def test_standard_input_is_read_line_by_line_and_stays_open(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w", buffering=1) as feeder:
        monkeypatch.setattr("sys.stdin", stdin)
        with RowReader("-") as reader:
            for number in range(3):
                feeder.write(f"{number},{number + 1}\n")  # the next line is not there yet
                assert next(reader).numbers == [number, number + 1]
            assert reader.description == "standard input"
        assert not stdin.closed


def test_a_standard_input_that_is_closed_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input cannot be read: it is closed"):
        RowReader("-")


def test_a_reader_that_was_closed_gives_no_more(write):
    reader = RowReader(write("1\n2\n"))
    next(reader)
    reader.close()
    assert list(reader) == []


def test_no_more_is_read_than_the_rows_that_are_asked_for(write, monkeypatch):
    with open(write("1,2,3,4,5,6,7\n" * 100_000)) as stdin:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", stdin)
        reader = RowReader("-")
        for _ in range(100):
            next(reader)
        assert os.lseek(stdin.fileno(), 0, os.SEEK_CUR) <= 1 << 16
