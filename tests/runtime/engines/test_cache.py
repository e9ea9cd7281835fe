"""The cache of engines, with a stand-in for TensorRT: what is taken, built again, and told."""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from waiting import LIMIT_S, wait_for

from edgekit.runtime import engines
from edgekit.runtime.engines import BuildOptions, ShapeRange, engine_for
from edgekit.runtime.engines.cache import EngineKey, cache_folder
from edgekit.runtime.engines.gpu import Gpu
from edgekit.targets.probe import probe

TESTS = Path(__file__).parents[2]


def kinds(events):
    return [event.kind for event in events]


def test_an_engine_is_built_once(tensorrt, onnx_model, cache, events):
    first = engine_for(onnx_model, on_event=events.append)
    second = engine_for(onnx_model, on_event=events.append)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.content == second.content and first.key == second.key
    assert first.file == second.file == cache / f"{first.key}.engine"
    assert len(tensorrt.configs) == 1 and kinds(events) == ["building"]
    assert cache.stat().st_mode & 0o777 == 0o700
    said = json.loads((cache / f"{first.key}.engine.json").read_text())
    assert said["key"]["gpu"] == "Orin" and said["size_bytes"] == len(first.content)


def test_timings_are_kept_for_other_models(tensorrt, onnx_model, cache, tmp_path):
    engine_for(onnx_model)
    engine_for(onnx_model, options=BuildOptions(memory_mb=64))
    assert tensorrt.timings == [b"", b"timed "]
    (timings,) = cache.glob("*.timing")
    timings.write_bytes(b"from elsewhere")
    engine_for(onnx_model, options=BuildOptions(memory_mb=65))
    assert tensorrt.timings[-1] == b""  # what we did not write is not used


KEY = EngineKey(
    model_sha256="0" * 64,
    flavour="tensorrt",
    version="10.3.0",
    architecture="aarch64",
    gpu="Orin",
    compute_capability="8.7",
    driver="540.4.0",
    jetpack="6.2",
    builder=1,
    options=BuildOptions(),
)
SHAPES = {"x": ShapeRange((1,), (1,), (2,))}


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("model_sha256", "1" * 64),
        ("flavour", "tensorrt_rtx"),
        ("version", "10.3.1"),
        ("architecture", "x86_64"),
        ("gpu", "Thor"),
        ("compute_capability", "11.0"),
        ("driver", None),
        ("jetpack", "6.1"),
        ("builder", 2),
        ("options", BuildOptions(memory_mb=512)),
        ("options", BuildOptions(shapes=SHAPES)),
        ("options", BuildOptions(compute_capabilities=("8.6",))),
    ],
)
def test_each_part_makes_another_key(part, other):
    changed = msgspec.structs.replace(KEY, **{part: other})
    assert changed.digest() != KEY.digest()
    is_shared = part in ("model_sha256", "options")
    assert (changed.of_the_machine().digest() == KEY.of_the_machine().digest()) == is_shared


def test_every_part_of_the_machine_is_in_the_key(tensorrt, onnx_model, monkeypatch, tmp_path):
    """What is found on the machine reaches the key: each change of it builds again."""

    def with_probe(**changes):
        changed = msgspec.structs.replace(probe(), **changes)
        monkeypatch.setattr(engines, "probe", lambda: changed)

    changes = [
        lambda: None,
        lambda: setattr(tensorrt, "__version__", "10.3.1"),
        lambda: monkeypatch.setattr(engines, "first_gpu", lambda: Gpu("Orin", "8.8")),
        lambda: monkeypatch.setattr(engines, "first_gpu", lambda: Gpu("Other", "8.8")),
        lambda: with_probe(nvidia_driver="540.4.0"),
        lambda: with_probe(nvidia_driver="540.4.0", jetson_linux="36.4"),
        lambda: with_probe(nvidia_driver="540.4.0", jetpack="6.2"),
    ]
    keys = []
    for change in changes:
        change()
        keys.append(engine_for(onnx_model).key)
    assert len(set(keys)) == len(changes) == len(tensorrt.configs)
    other = tmp_path / "other.onnx"
    other.write_bytes(onnx_model.read_bytes() + b"\x42\x00")  # an empty opset_import
    assert engine_for(other).key not in keys


def test_what_was_asked_for_last_is_what_runs(tensorrt, onnx_model):
    """`edgekit build --memory-mb 64`, then a run that knows nothing of it."""
    built = engine_for(onnx_model, options=BuildOptions(memory_mb=64))
    assert engine_for(onnx_model).key == built.key
    plain = engine_for(onnx_model, options=BuildOptions())
    assert plain.key != built.key and engine_for(onnx_model).key == plain.key


def test_options_that_are_the_default_are_not_written_down(tensorrt, onnx_model, cache):
    engine_for(onnx_model, options=BuildOptions())
    assert not list(cache.glob("*.options"))


def test_a_umask_of_0_makes_no_engine_that_is_refused(tensorrt, onnx_model, events):
    before = os.umask(0)
    try:
        engine_for(onnx_model)
    finally:
        os.umask(before)
    assert engine_for(onnx_model, on_event=events.append).from_cache and events == []


def test_a_failed_build_keeps_nothing_and_is_tried_again(tensorrt, onnx_model, cache):
    tensorrt.fails, tensorrt.errors = True, ["no tactics"]
    for _ in range(2):
        with pytest.raises(engines.ModelError, match="no tactics"):
            engine_for(onnx_model)
    assert [file.suffix for file in cache.iterdir()] == [".lock"]
    tensorrt.fails = False
    assert not engine_for(onnx_model).from_cache


def swap(engine):
    engine.write_bytes(b"an engine of somebody else's")


def swap_whole(engine):
    """Another engine of the cache with its own true description, under this one's name."""
    other, description = engine.with_name("other.engine"), Path(f"{engine}.json")
    said = json.loads(description.read_text())
    said["key"]["gpu"] = "Other"
    description.write_text(json.dumps(said))
    assert not other.exists()


def same_size(engine):
    engine.write_bytes(bytes(len(engine.read_bytes())))


def cut(engine):
    engine.write_bytes(engine.read_bytes()[:-1])


def grow(engine):
    with engine.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file: reading it would take a terabyte


def undescribe(engine):
    Path(f"{engine}.json").unlink()


def damage_description(engine):
    Path(f"{engine}.json").write_text('{"sha256": ' * 2000)


def blow_up_description(engine):
    Path(f"{engine}.json").write_bytes(b" " * (1 << 17))


def open_to_all(engine):
    engine.chmod(0o666)


def link(engine):
    content = engine.read_bytes()
    engine.unlink()
    engine.with_name("elsewhere").write_bytes(content)
    engine.symlink_to(engine.with_name("elsewhere"))


def pipe(engine):
    engine.unlink()
    os.mkfifo(engine)


HARMS = [swap, swap_whole, same_size, cut, grow, undescribe, damage_description]
HARMS += [blow_up_description, open_to_all, link]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_what_we_did_not_write_is_not_used_and_said(harm, tensorrt, onnx_model, events):
    first = engine_for(onnx_model)
    harm(first.file)
    second = engine_for(onnx_model, on_event=events.append)
    assert not second.from_cache and len(tensorrt.configs) == 2
    assert kinds(events) == ["refused", "building"]
    assert str(first.file) in events[0].text and "\n" not in events[0].text
    third = engine_for(onnx_model, on_event=events.append)
    assert third.from_cache and third.content == second.content
    assert len(events) == 2  # mended: nothing is said again


def test_an_engine_of_another_user_is_not_used(tensorrt, onnx_model, events):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(engine_for(onnx_model).file, 12345, -1)
    assert not engine_for(onnx_model, on_event=events.append).from_cache
    assert "another user" in events[0].text


@pytest.mark.parametrize("place", ["file", "proc"])
def test_an_unwritable_cache_is_told_once_and_the_build_goes_on(
    place, tensorrt, onnx_model, events, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("not a folder")
    folder = {"file": tmp_path / "file", "proc": Path("/proc/edgekit")}[place]
    monkeypatch.setenv("EDGEKIT_CACHE", str(folder))
    engine = engine_for(onnx_model, on_event=events.append, options=BuildOptions(memory_mb=64))
    assert engine.content and engine.file is None and not engine.from_cache
    assert sorted(kinds(events)) == ["building", "cache"]
    (told,) = [event.text for event in events if event.kind == "cache"]
    assert f"cannot write {folder}" in told and "EDGEKIT_CACHE" in told


def test_a_read_only_cache_still_serves(tensorrt, onnx_model, events, monkeypatch):
    """Root may write anywhere, so that the lock's failure is made."""
    built = engine_for(onnx_model)

    def refuse(path, flags, *rest, **named):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *rest, **named)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    engine = engine_for(onnx_model, on_event=events.append)
    assert engine.from_cache and engine.content == built.content and events == []


def test_something_else_in_the_engines_place_costs_only_the_keeping(
    tensorrt, onnx_model, events, cache
):
    engine = engine_for(onnx_model)
    for harm in (pipe, lambda file: (file.unlink(), file.mkdir())):
        harm(engine.file)
        del events[:]
        again = engine_for(onnx_model, on_event=events.append)
        assert again.content and not again.from_cache
        assert kinds(events)[:2] == ["refused", "building"]


def test_no_home_and_no_cache_is_told(tensorrt, onnx_model, monkeypatch):
    for name in ("EDGEKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(engines.cache.OutputError, match="Set EDGEKIT_CACHE"):
        engine_for(onnx_model)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgekit" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edgekit" / "engines"


def test_without_on_event_a_build_is_logged(tensorrt, onnx_model, caplog):
    tensorrt.warnings = ["of TensorRT"]
    with caplog.at_level(logging.WARNING):
        engine_for(onnx_model)
        engine_for(onnx_model)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "an engine is built for this machine" in caplog.text


@pytest.fixture
def child(onnx_model, tmp_path, cache):
    """Return a function that starts a process which asks for the engine; none outlives the test."""
    processes = []

    def start(**options):
        processes.append(
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("cache_child.py")),
                 str(onnx_model), str(tmp_path)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
        )  # fmt: skip
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_build_once(child, tmp_path):
    first = child()
    wait_for((tmp_path / "began").exists, "the first build")
    second = child()
    first_line = second.stdout.readline()
    assert first_line.startswith("waiting another process builds")
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=LIMIT_S) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    ends = [output.splitlines()[-1].split() for output, _ in outputs]
    assert ends[0][1] == ends[1][1] and [end[2] for end in ends] == ["False", "True"]
    assert "waiting" not in outputs[1][0]  # it was said once
    assert (tmp_path / "builds").read_text() == "one\n"


def test_sigkill_in_mid_build_leaves_nothing_and_frees_the_lock(
    child, tmp_path, cache, tensorrt, onnx_model, events
):
    process = child()
    wait_for((tmp_path / "began").exists, "the build")
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    assert [file.suffix for file in cache.iterdir()] == [".lock"]
    assert engine_for(onnx_model, on_event=events.append).file is not None
    assert kinds(events) == ["building"]


def test_sigint_in_mid_build_ends_it_and_frees_the_lock(
    child, tmp_path, cache, tensorrt, onnx_model, events
):
    process = child()
    wait_for((tmp_path / "began").exists, "the build")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert [file.suffix for file in cache.iterdir()] == [".lock"]
    assert engine_for(onnx_model, on_event=events.append).file is not None
    assert kinds(events) == ["building"]


def test_what_a_killed_writer_left_is_removed(tensorrt, onnx_model, cache):
    engine = engine_for(onnx_model)
    left = cache / f".{engine.file.name}.0123abcd.partial"
    left.write_bytes(b"half")
    swap(engine.file)
    assert not engine_for(onnx_model).from_cache
    assert not left.exists()


def test_a_full_disk_is_told_and_the_engine_is_used(child, tmp_path, cache):
    """A limit on the size of files stands for the disk: 100 bytes are less than an engine."""
    (tmp_path / "go").touch()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # noqa: E731
    process = child(preexec_fn=limit)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert "cache cannot write" in output and "File too large" in output
    assert output.splitlines()[-1].startswith("engine ")
    assert [file.suffix for file in cache.iterdir()] == [".lock"]
