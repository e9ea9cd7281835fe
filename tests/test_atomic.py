"""Files and folders appear whole or not at all."""

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from edgekit.atomic import check_folder_destination, output_errors, write_file, write_folder
from edgekit.errors import OutputError

OLD, NEW = {"a": b"old a", "b": b"old b"}, {"a": b"new a", "c": b"new c"}


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def mount(tmp_path):
    """Return a function that mounts a small file system in memory, with the options given."""
    mounted = []

    def mount_with(options):
        place = tmp_path / f"mounted{len(mounted)}"
        place.mkdir()
        try:
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount_with
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "x.json"
    for text in (b"one", b"two"):
        write_file(path, text)
        assert path.read_bytes() == text
    assert names(tmp_path) == ["x.json"]


def test_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    target = tmp_path / "target.json"
    target.write_bytes(b"old")
    link = tmp_path / "link.json"
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["link.json", "target.json"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    reader, writer = os.pipe()
    write_file(Path(f"/dev/fd/{writer}"), b"through")
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"through"


@pytest.mark.parametrize("path", ["", ".", "/", "folder", "no/such/folder/x", "file/x", "a" * 300])
def test_file_that_cannot_be_is_one_clear_line(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"^cannot write .+; .+") as caught:
        write_file(Path(path), b"content")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]


def test_folder_is_written_and_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.edgekit"
    for files in (OLD, NEW):
        write_folder(path, files)
        assert content(path) == files
    assert names(tmp_path) == ["x.edgekit"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "x[1].edgekit"
    abandoned = tmp_path / ".x[1].edgekit.0a1b2c3d.partial"
    abandoned.mkdir()
    (abandoned / "a").write_bytes(b"half")
    other = tmp_path / ".x1.edgekit.0a1b2c3d.partial"  # what the name would match as a pattern
    other.mkdir()
    write_folder(path, OLD)
    assert names(tmp_path) == [other.name, path.name]


def test_what_a_living_writer_is_at_stays(tmp_path):
    path = tmp_path / "x.edgekit"
    partial = tmp_path / ".x.edgekit.0a1b2c3d.partial"
    partial.mkdir()
    lock = os.open(partial, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    write_folder(path, OLD)
    assert names(tmp_path) == [partial.name, path.name]
    os.close(lock)
    write_folder(path, NEW)
    assert names(tmp_path) == [path.name]


def test_failing_in_the_middle_leaves_the_old_folder(tmp_path):
    path = tmp_path / "x.edgekit"
    write_folder(path, OLD)
    with pytest.raises(OutputError, match="cannot write"):
        write_folder(path, {**NEW, "no/such/folder": b""})
    assert content(path) == OLD
    assert names(tmp_path) == ["x.edgekit"]


@pytest.mark.parametrize("old", [None, OLD])
def test_full_disk_leaves_the_old_folder_and_nothing_else(mount, old):
    disk = mount("size=64k")
    path = disk / "x.edgekit"
    if old is not None:
        write_folder(path, old)
    before = names(disk)
    with pytest.raises(OutputError, match="the disk is full; free space"):
        write_folder(path, {"a": b"a", "large": bytes(100_000)})
    assert names(disk) == before
    if old is not None:
        assert content(path) == old


def test_full_disk_leaves_the_old_file_and_nothing_else(mount):
    disk = mount("size=64k")
    write_file(disk / "x.json", b"old")
    with pytest.raises(OutputError, match="the disk is full; free space"):
        write_file(disk / "x.json", bytes(100_000))
    assert content(disk) == {"x.json": b"old"}


def test_read_only_file_system_is_told(mount):
    path = mount("ro") / "x.edgekit"
    for attempt in (
        lambda: write_folder(path, NEW),
        lambda: write_file(path, b""),
        lambda: check_folder_destination(path),
    ):
        with pytest.raises(OutputError, match="read-only; choose another place"):
            attempt()


@pytest.mark.parametrize("old", [None, OLD])
def test_checking_a_place_leaves_it_as_it_was(tmp_path, old):
    path = tmp_path / "x.edgekit"
    if old is not None:
        write_folder(path, old)
    check_folder_destination(path)
    assert names(tmp_path) == ([] if old is None else ["x.edgekit"])
    assert old is None or content(path) == old


@pytest.mark.parametrize("place", ["file/x.edgekit", "no/x.edgekit", "/proc/x.edgekit"])
def test_place_that_takes_no_folder_is_found_before_the_work(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write .*x.edgekit: .+; .+"):
        check_folder_destination(Path(place))
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "may write to"),
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "disk is full"),
        (errno.ENOENT, "make it first"),
        (errno.EIO, "another place"),
    ],
)
def test_system_errors_become_one_line_with_advice(code, advice):
    with pytest.raises(OutputError, match=advice) as caught, output_errors("place"):
        raise OSError(code, os.strerror(code))
    assert str(caught.value).startswith(f"cannot write place: {os.strerror(code)}; ")
    assert caught.value.exit_code == 3


def test_closed_standard_output_is_no_output_error():
    with pytest.raises(BrokenPipeError), output_errors("-"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(OutputError), output_errors("pipe"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
