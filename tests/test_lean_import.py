"""Imports cost what they must and point one way: a device never loads the converters' packages."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit

PACKAGE = Path(edgekit.__file__).parent

# From the bottom up: a part imports from its own layer and from those below it.
LAYERS = (
    {"errors"},
    {"specs", "streaming", "atomic", "plugins", "isolated"},
    {"bundle", "data", "golden", "packing", "rows", "targets"},
    {"runtime", "doctor"},
    {"converters", "evaluation", "profiling", "reports", "demo"},
    {"cli", "__main__"},
)
ON_THE_DEVICE = set().union(*LAYERS[:4], {"evaluation", "profiling"})
FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "torch", "jax", "ai_edge_quantizer", "onnx"}

needs_opencv = pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="no OpenCV: pip install -e '.[cpu]'"
)


def modules_after(code):
    """Return the names of the modules that running `code` adds to a fresh interpreter."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, sys\nbefore = set(sys.modules)\n"
            + code
            + "\nprint(json.dumps(sorted(set(sys.modules) - before)))",
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def tops(modules):
    return {name.partition(".")[0] for name in modules}


def module_names(part):
    """Return the dotted names of a part of edgekit and of all that is below it."""
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").is_file() else []
    files += (PACKAGE / part).rglob("*.py")
    dotted = (".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files)
    return sorted(name.removesuffix(".__init__") for name in dotted)


def part_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file):
    """Return every name that `file` imports, inside functions too, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write it from edgekit on"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


SOURCES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def test_importing_edgekit_loads_numpy_at_most():
    loaded = tops(modules_after("import edgekit"))
    assert loaded - set(sys.stdlib_module_names) <= {"edgekit", "numpy"}


@needs_opencv
@pytest.mark.parametrize("part", sorted(ON_THE_DEVICE))
def test_the_device_parts_load_no_framework_and_no_converter(part):
    loaded = modules_after("\n".join(f"import {name}" for name in module_names(part)))
    assert f"edgekit.{part}" in loaded
    assert not tops(loaded) & FRAMEWORKS
    assert not {name for name in loaded if name.startswith(("edgekit.converters", "edgekit.cli"))}


def test_listing_names_imports_none_of_them():
    loaded = modules_after(
        "from edgekit import plugins, targets\n"
        "assert all(plugins.names(kind) for kind in ('backend', 'camera', 'sink'))\n"
        "assert targets.target_names()"
    )
    ours = {name for name in loaded if name.startswith("edgekit")}
    assert ours <= {"edgekit", "edgekit.errors", "edgekit.plugins", "edgekit.targets"}
    assert not tops(loaded) & {"numpy", "cv2", "ai_edge_litert", *FRAMEWORKS}


@needs_opencv
def test_every_public_name_resolves():
    assert sorted(edgekit.__all__) == list(edgekit.__all__)
    for name in edgekit.__all__:
        assert getattr(edgekit, name) is not None
        assert name in dir(edgekit)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'transmogrify'"):
        _ = edgekit.transmogrify


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    height = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    part = part_of(file)
    assert part in height, f"edgekit/{part} is new: give it a place in LAYERS"
    used = {name.split(".")[1] for name in imports(file) if name.startswith("edgekit.")}
    above = {name for name in used & height.keys() if height[name] > height[part]}
    assert not above, f"edgekit/{part} is below {above}"
    if part in ON_THE_DEVICE:
        assert not tops(imports(file)) & FRAMEWORKS
        assert "converters" not in used
