"""Jobs in a process of their own: results, errors, and deaths come back in words."""

import pytest

from edgekit.converters.isolated import run_isolated
from edgekit.errors import ModelError, UsageError

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
    with pytest.raises(ModelError, match="a test: the converter's process was ended with exit"):
        run_isolated("edgekit.converters.recipe:no_such_function", {}, what="a test")


def test_temporary_files_of_the_child_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError):
        run_isolated(*REFUSED, what="a test")
    assert list(tmp_path.iterdir()) == []
