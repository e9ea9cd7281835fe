"""What EdgeKit's source uses of a Python API, found by walking its syntax tree.

A use is an attribute of something whose class is known: of a variable that `NAMES` gives a class,
of what a call returns (pybind11 writes that into docstrings), or of a class or enumeration itself.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import edgekit

RUNTIME = Path(edgekit.__file__).parent / "runtime"
MODULE = ""  # the class of the module itself
FILES = ("backends/tensorrt.py", "engines/builder.py", "engines/cache.py", "engines/versions.py")
# Names in our source -> TensorRT's class; file by file where a name is also used for another thing.
NAMES = {
    "module": MODULE,
    "self._module": MODULE,
    "flags": "NetworkDefinitionCreationFlag",
    "severities": "ILogger.Severity",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "timings": "ITimingCache",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "context": "IExecutionContext",
}
OF_FILE = {
    "engines/builder.py": {"engine": "IHostMemory", "tensor": "ITensor", "error": "ParserError"},
}
# Attributes of our own classes too, so that they say nothing of what they are an attribute of.
COMMON = {"name", "shape", "dtype", "engine", "device_memory", "stream"}


@dataclass(frozen=True)
class Call:
    """How something is called: positional arguments and keywords."""

    count: int
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Use:
    """`name` of TensorRT's, dotted; `call`: how it is called, `overrides`: parameters of ours."""

    name: str
    where: str
    call: Call | None = None
    overrides: int | None = None


class Api:
    """An API as vendor_api_child.py describes it."""

    def __init__(self, description):
        self.version = description["version"]
        self._members = description["members"]

    def find(self, name):
        """Return the entry of a dotted name, or None."""
        members, entry = self._members, {"doc": "", "members": self._members}
        for part in name.split(".") if name else ():
            entry = members.get(part)
            if entry is None:
                return None
            members = entry["members"]
        return entry

    def signatures(self, name):
        """Return [(names of parameters, how many have no default)] of each overload; self left out.

        None: what pybind11 wrote says none, as of properties.
        """
        short = name.split(".")[-1]
        doc = self.find(name)["doc"]
        found = re.findall(rf"^(?:\d+\. )?{short}\((self: .*|.*)\) -> ", doc, re.MULTILINE)
        return [_parameters(text) for text in found] or None

    def returned(self, name):
        """Return the class that a method returns, or None where it is none of TensorRT's."""
        entry = self.find(name)
        found = re.search(r"\) -> (?:\w+\.)+([A-Z]\w+)$", entry["doc"], re.MULTILINE)
        return found[1] if entry and found and self.find(found[1]) else None


def _parameters(text):
    """Split "self: X, a: int, b: Y = <Y.Z: 0>" at the commas that are in no bracket."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "<[({") - (letter in ">])}")
        if letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    parts.append(text[start:].strip())
    parts = [part for part in parts if part and not part.startswith("self:")]
    names = [re.split(":| = ", part)[0] for part in parts]
    return names, sum(" = " not in part for part in parts)


def uses(source, file, names, api):
    """Return every use of the API in `source`, the text of `file`, sorted."""
    finder = _Finder(names, file, api)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=repr)


def uses_of_tensorrt(api):
    """Return every use of TensorRT in EdgeKit's own source."""
    return [
        use
        for file in FILES
        for use in uses((RUNTIME / file).read_text(), file, NAMES | OF_FILE.get(file, {}), api)
    ]


def of_unknown_class(source, names, api, found):
    """Return attributes that classes in use have, of something that `names` gives no class."""
    classes = {api.find(use.name.split(".")[0]) and use.name.split(".")[0] for use in found}
    known = {name for part in classes - {None} for name in api.find(part)["members"]}
    finder = _Finder(names, "", api)
    return {
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr in known - COMMON
        and not node.attr.startswith("_")
        and finder.class_of(node.value) is None
    }


class _Finder(ast.NodeVisitor):
    def __init__(self, names, file, api):
        self._names, self._file, self._api = names, file, api
        self._calls = {}
        self.found = set()

    def visit_Call(self, node):
        keywords = tuple(sorted(keyword.arg or "**" for keyword in node.keywords))
        self._calls[node.func] = Call(len(node.args), keywords)
        self.generic_visit(node)

    def visit_Attribute(self, node):
        self._name_of(node)
        self.generic_visit(node)

    def visit_ClassDef(self, node):
        for base in node.bases:
            name = self._name_of(base) if isinstance(base, ast.Attribute) else None
            if name and self._api.find(name):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                        count = len(part.args.args) - 1
                        self._add(Use(f"{name}.{part.name}", self._at(part), overrides=count))
        self.generic_visit(node)

    def class_of(self, node):
        """Return the class of what an expression gives, MODULE for the module, None: unknown."""
        text = ast.unparse(node)
        if text in self._names:
            return self._names[text]
        if isinstance(node, ast.Call):
            name = self._name_of(node.func) if isinstance(node.func, ast.Attribute) else None
            entry = name and self._api.find(name)
            if not entry:
                return None
            return name if "__init__" in entry["members"] else self._api.returned(name)
        return self._name_of(node) if isinstance(node, ast.Attribute) else None

    def _name_of(self, node):
        """Return the dotted name of an attribute of TensorRT's and note its use, or None."""
        owner = self.class_of(node.value)
        if owner is None:
            return None
        name = f"{owner}.{node.attr}" if owner else node.attr
        self._add(Use(name, self._at(node), self._calls.get(node)))
        return name

    def _add(self, use):
        self.found.add(use)

    def _at(self, node):
        return f"{self._file}:{node.lineno}"


def problems(found, api, may_lack=lambda name: False):
    """Return what is wrong with uses against an API, as lines.

    Args:
        found: uses.
        api: of one version.
        may_lack: whether our table says that this version has not that name.
    """
    lines = []
    for use in found:
        parts = use.name.split(".")
        if any(may_lack(".".join(parts[:count])) for count in range(1, len(parts) + 1)):
            continue
        if api.find(use.name) is None:
            lines.append(f"{use.where}: {api.version} has no {use.name}")
        elif use.call is not None:
            lines += _call_problems(use, api)
        elif use.overrides is not None:
            counts = [len(names) for names, _ in api.signatures(use.name) or ()]
            if counts and use.overrides not in counts:
                lines.append(f"{use.where}: {use.name} is called with {counts} in {api.version}")
    return lines


def _call_problems(use, api):
    is_class = "__init__" in api.find(use.name)["members"]
    signatures = api.signatures(f"{use.name}.__init__" if is_class else use.name)
    if signatures is None or use.name.endswith("__init__"):
        return []
    for names, required in signatures:
        rest = names[use.call.count :]
        given = use.call.count + len(use.call.keywords)
        if required <= given <= len(names) and set(use.call.keywords) <= set(rest):
            return []
    keywords = "".join(f", {name}=" for name in use.call.keywords)
    called = f"{use.name}({use.call.count} arguments{keywords})"
    return [f"{use.where}: {called} does not fit {signatures} of {api.version}"]
