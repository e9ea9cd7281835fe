"""What fresh processes measure of themselves; no assertion is about how long anything takes."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from edgekit.errors import BackendError, BundleError, UsageError
from edgekit.profiling import child, fresh
from edgekit.profiling.child import DuringImports
from edgekit.profiling.fresh import blocks, cold_start, memory
from edgekit.profiling.rss import peak_rss_mb, rss_mb
from edgekit.runtime import engines

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def sitecustomize(tmp_path, monkeypatch):
    """Return a function that has a text run at the start of every child."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return (tmp_path / "sitecustomize.py").write_text


def test_a_cold_start_is_made_of_its_parts(classifier_bundle):
    told = []
    found = cold_start(
        classifier_bundle, "litert", 1, processes=1, on_progress=lambda *args: told.append(args)
    )
    parts_ms = (found.start_ms, found.import_ms, found.open_ms, found.first_ms)
    assert all(part > 0 for part in parts_ms)
    assert sum(parts_ms) <= found.total_ms
    assert found.build_ms is None  # LiteRT builds no engine
    assert found.processes == 1
    assert told == [("cold start", 0, 1), ("cold start", 1, 1)]


def test_memory_is_that_of_the_process_not_of_its_parent(classifier_bundle, sitecustomize):
    sitecustomize("print('printed by a library')")  # which must not reach the answer
    held = b"x" * 300_000_000
    found = memory(classifier_bundle)
    assert len(held) / 1e6 > found.peak_rss_mb > found.opened_mb >= 0
    assert found.model_mb == (classifier_bundle / "model.tflite").stat().st_size / 1e6


def test_blocks_are_profiles_of_other_processes(classifier_bundle):
    request = {"model": classifier_bundle, "runs": 12, "threads": [1], "backend": "litert"}
    found = blocks(request, 2)
    assert [profile.runs for profile in found] == [12, 12]
    assert found[0].samples_ms != found[1].samples_ms
    assert all(len(profile.samples_ms) == 12 for profile in found)


def test_errors_of_a_process_keep_their_words(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        memory(tmp_path / "none.edgekit")


@pytest.mark.parametrize(
    ("at_start", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "the cold start of .* by signal SIGKILL"),
        ("import time; time.sleep(600)", "the cold start of .*: no answer within 0.2 s"),
    ],
)
def test_a_process_that_dies_or_hangs_is_one_line_and_3(sitecustomize, at_start, said):
    sitecustomize(at_start)
    with pytest.raises(BackendError, match=said) as caught:
        cold_start("a.edgekit", limit_s=0.2 if "sleep" in at_start else 60)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "measure", [lambda n: cold_start("a", processes=n), lambda n: blocks({}, n)]
)
def test_no_process_at_all_is_refused(measure):
    with pytest.raises(UsageError, match="`processes` must be at least 1; got 0"):
        measure(0)


def test_frames_that_only_this_process_has_are_refused():
    with pytest.raises(UsageError, match="`source` must be a name.*; got list_iterator"):
        blocks({"model": "a.edgekit", "source": iter([1])}, 2)


def test_what_imports_cost_is_counted_once_however_they_nest(tmp_path, monkeypatch):
    """On a clock that the imported modules put forward."""
    now_s = [0.0]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "now_s_of_the_test", now_s, raising=False)
    forward = "import sys; sys.now_s_of_the_test[0] += {}\n"
    (tmp_path / "inner_of_the_test.py").write_text(forward.format(2))
    (tmp_path / "outer_of_the_test.py").write_text(
        forward.format(1) + "import inner_of_the_test\n" + forward.format(4)
    )
    (tmp_path / "later_of_the_test.py").write_text(forward.format(16))
    with DuringImports(lambda: now_s[0]) as importing:
        import outer_of_the_test  # noqa: F401

        now_s[0] += 8
        import_module("later_of_the_test")
        with pytest.raises(ImportError):
            import_module("missing_of_the_test")
    assert importing.total == 1 + 2 + 4 + 16
    __import__("json")
    assert importing.total == 23


def test_the_child_begins_without_the_libraries_whose_imports_it_measures():
    code = (
        "import sys, edgekit.profiling.child; sys.exit(bool({'numpy', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_peak_of_memory_is_not_below_what_is_held():
    assert 1 < rss_mb() <= peak_rss_mb()


def test_building_an_engine_is_told_apart(monkeypatch):
    """With a stand-in for TensorRT's builder, on a clock of its own."""
    now_s = [0.0]

    def build(model):
        now_s[0] += 90
        return f"engine of {model}"

    monkeypatch.setattr(engines, "build_engine", build)
    monkeypatch.setattr(child, "find_spec", lambda name: name == "tensorrt")
    built_s = child._watch_builds(lambda: now_s[0])
    assert built_s == []
    assert engines.build_engine("a.onnx") == "engine of a.onnx"
    assert built_s == [90]


def test_a_cold_start_is_the_median_of_processes_after_the_one_that_builds(monkeypatch):
    parts = ("start_ms", "import_ms", "open_ms", "first_ms", "total_ms")
    planted = [
        {**dict.fromkeys(parts, float(number)), "build_ms": 90_000.0 if number == 1 else None}
        for number in (1, 7, 5, 4, 3, 6, 2)
    ]
    given = iter(planted)
    monkeypatch.setattr(fresh, "start", lambda *_, **__: next(given))
    found = cold_start("a.edgekit", processes=6)
    assert found.build_ms == 90_000
    assert {getattr(found, part) for part in parts} == {4.5}
    assert found.total_interval_ms.low < 4.5 < found.total_interval_ms.high
    given = iter(planted)
    assert cold_start("a.edgekit", processes=5).total_interval_ms is None
