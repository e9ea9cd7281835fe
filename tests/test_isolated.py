"""Jobs in a process of their own: results, errors, and deaths come back in words."""

import pytest

from edgekit.errors import BackendError, ModelError, UsageError
from edgekit.isolated import run_isolated

# Refused in the child before TensorFlow is imported.
REFUSED = (
    "edgekit.converters.convert:convert_in_child",
    {"recipe": {"precision": "int4"}, "model": "a.keras", "out": "b.edgekit", "keep": False},
)


def test_errors_keep_their_class_and_words():
    with pytest.raises(UsageError, match="`precision` must be one of fp32"):
        run_isolated(*REFUSED, what="a test")


def test_functions_of_others_are_not_run():
    with pytest.raises(ValueError, match="only functions of edgekit"):
        run_isolated("os:system", {"command": "true"}, what="a test")


def test_a_child_that_dies_is_reported_with_its_last_words():
    with pytest.raises(ModelError, match="a test: its process was ended with exit"):
        run_isolated("edgekit.converters.recipe:no_such_function", {}, what="a test")


def test_temporary_files_of_the_child_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError):
        run_isolated(*REFUSED, what="a test")
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_takes_too_long_is_ended(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(600)")
    with pytest.raises(BackendError, match="a test: no answer within 0.1 s, so its process was"):
        run_isolated(
            *REFUSED,
            what="a test",
            environment={"PYTHONPATH": str(tmp_path)},
            timeout_s=0.1,
            died=BackendError,
        )
