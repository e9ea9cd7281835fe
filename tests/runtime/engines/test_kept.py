"""What the cache of engines holds and what it removes, with a stand-in for TensorRT."""

import fcntl
import os
from pathlib import Path

import pytest

from edgekit.errors import OutputError, UsageError
from edgekit.runtime.engines import BuildOptions, engine_for, misfit
from edgekit.runtime.engines.gpu import Gpu
from edgekit.runtime.engines.kept import kept_engines, limit_bytes

DAY_NS = 86_400 * 10**9


@pytest.fixture
def keep(tensorrt, onnx_model, cache, events):
    """Return a function that builds or opens an engine, and says when that was, in days."""

    def keep(number, day):
        engine = engine_for(
            onnx_model, options=BuildOptions(memory_mb=number), on_event=events.append
        )
        os.utime(engine.file, ns=(day * DAY_NS, day * DAY_NS))
        return engine.file

    return keep


@pytest.fixture
def allow(keep, monkeypatch):
    """Return a function that has the cache hold no more than so many engines."""

    def allow(count):
        size_bytes = len(keep(1, 1).read_bytes())
        monkeypatch.setattr(
            "edgekit.runtime.engines.limit_bytes", lambda: count * size_bytes + size_bytes // 2
        )

    return allow


def files(cache):
    return [engine.file for engine in kept_engines(cache)]


def test_what_was_not_used_for_longest_makes_room(keep, allow, cache, events):
    allow(3)
    first, second, third = keep(1, 5), keep(2, 2), keep(3, 3)
    assert files(cache) == [second, third, first]
    events.clear()
    fourth = keep(4, 4)
    assert files(cache) == [third, fourth, first]
    assert [event.kind for event in events] == ["building", "removed"]
    assert "model.onnx, unused for longest, is removed: EDGEKIT_CACHE_MB" in events[1].text
    assert sorted(cache.glob(f"{second.name}*")) == [cache / f"{second.name}.lock"]
    assert not keep(2, 6).samefile(first)  # it is built again
    assert [event.kind for event in events[2:]] == ["building", "removed"]


def test_opening_an_engine_is_a_use(keep, allow, cache, onnx_model):
    allow(2)
    first, second = keep(1, 1), keep(2, 2)
    assert engine_for(onnx_model, options=BuildOptions(memory_mb=1)).from_cache
    third = keep(3, 3)
    assert set(files(cache)) == {first, third}
    assert not second.exists()


def test_what_another_process_holds_stays(keep, allow, cache):
    allow(2)
    first, second = keep(1, 1), keep(2, 2)
    with (cache / f"{first.name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        third = keep(3, 3)
    assert files(cache) == [first, third]
    assert not second.exists()


def test_what_was_opened_since_it_was_found_stays(keep, allow, cache, monkeypatch):
    allow(2)
    first, second = keep(1, 1), keep(2, 2)

    def listed(folder):
        found = kept_engines(folder)
        os.utime(first)
        return found

    monkeypatch.setattr("edgekit.runtime.engines.cache.kept_engines", listed)
    third = keep(3, 3)
    assert set(files(cache)) == {first, third}
    assert not second.exists()


def test_what_was_just_built_stays_however_large(keep, allow, cache):
    allow(0)
    second = keep(2, 2)
    assert files(cache) == [second]


def test_what_is_not_ours_is_neither_shown_nor_removed(keep, allow, cache):
    allow(1)
    first = keep(1, 1)
    (cache / f"{first.name}.json").write_text("{}")
    (cache / "mine.engine").write_bytes(b"x" * 10_000)
    (cache / "remote").mkdir()
    second, third = keep(2, 2), keep(3, 3)
    assert files(cache) == [third]
    assert first.exists() and (cache / "mine.engine").exists() and not second.exists()


def test_an_engine_that_cannot_be_removed_stays_and_the_build_is_kept(
    keep, allow, cache, monkeypatch
):
    allow(1)
    first, unlink = keep(1, 1), Path.unlink

    def refuse(path, missing_ok=False):
        if path == first:
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    second = keep(2, 2)
    assert files(cache) == [first, second]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 4_000_000_000), ("0", None), ("250", 250_000_000), ("00", None)],
)
def test_the_limit_is_megabytes(text, expected, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE_MB", text)
    assert limit_bytes() == expected


@pytest.mark.parametrize("text", ["-1", "4GB", "1.5", "\u0664"])
def test_a_limit_that_is_no_number_is_told_before_the_build(
    text, tensorrt, onnx_model, cache, monkeypatch
):
    monkeypatch.setenv("EDGEKIT_CACHE_MB", text)
    with pytest.raises(UsageError, match="EDGEKIT_CACHE_MB must be a whole number of megabytes"):
        engine_for(onnx_model)
    assert tensorrt.configs == [] and not cache.exists()


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    assert kept_engines(tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="EDGEKIT_CACHE names another folder"):
        kept_engines(tmp_path / "file")


def test_whether_an_engine_fits_this_machine(keep, cache, monkeypatch):
    keep(1, 1)
    (engine,) = kept_engines(cache)
    assert misfit(engine.key) is None
    monkeypatch.setattr("edgekit.runtime.engines.first_gpu", lambda: Gpu("Thor", "11.0"))
    assert misfit(engine.key) == "gpu: here Thor, compute capability: here 11.0"
    monkeypatch.setattr("edgekit.runtime.engines.first_gpu", lambda: None)
    assert "CUDA shows none here" in misfit(engine.key)
