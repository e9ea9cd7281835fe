"""The tree of errors, and what their messages promise."""

import inspect
import re

import pytest

from edgekit import errors
from edgekit.errors import EdgeKitError, MissingPackage, UsageError, expect_one_of, require

TREE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, EdgeKitError)
]


def drawn_tree():
    """Return name -> (exit code or None, depth) as the docstring draws them."""
    lines = [
        line for line in errors.__doc__.splitlines() if re.search(r"[├└]──|^ +EdgeKitError", line)
    ]
    drawn = {}
    for line in lines:
        name, code = re.search(r"(\w+) +(\d)?", line.replace("│", " ")).groups()
        drawn[name] = (None if code is None else int(code), line.index(name))
    return drawn


def test_the_docstring_draws_every_error():
    assert set(drawn_tree()) == {kind.__name__ for kind in TREE}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_exit_codes_and_parents_are_those_of_the_drawing(kind):
    drawn = drawn_tree()
    code, depth = drawn[kind.__name__]
    if code is not None:
        assert kind.exit_code == code
    if kind is not EdgeKitError:
        assert drawn[kind.__mro__[1].__name__][1] < depth
        assert issubclass(kind, EdgeKitError)


def test_usual_handlers_catch_them():
    assert issubclass(UsageError, ValueError)
    assert issubclass(MissingPackage, ImportError)


def test_wrong_value_names_what_there_is():
    with pytest.raises(UsageError) as caught:
        expect_one_of("precision", "int4", iter(["fp32", "int8"]))
    assert str(caught.value) == "`precision` must be one of fp32, int8; got 'int4'"
    assert expect_one_of("precision", "int8", ["fp32", "int8"]) == "int8"


def test_missing_package_names_the_line_that_installs_it():
    with pytest.raises(MissingPackage, match=re.escape("pip install 'edgekit[convert]'")) as caught:
        require("a_package_that_is_not_there", "convert")
    assert "a_package_that_is_not_there" in str(caught.value)
    assert caught.value.exit_code == 3
    assert require("json", "cpu").dumps([]) == "[]"
