"""pycuda's API as its source says it: the module cannot be imported without NVIDIA's driver.

The C++ that Boost.Python reads is searched for what it exposes, in the form of vendor_api_child.py.
"""

import ast
import re
import tarfile


def described(archive):
    """Return the API of pycuda.driver and of pycuda.compiler.SourceModule."""
    with tarfile.open(archive) as files:
        name = files.getnames()[0].split("/")[0]
        text = {
            path: files.extractfile(f"{name}/{path}").read().decode()
            for path in ("src/wrapper/wrap_cudadrv.cpp", "pycuda/driver.py", "pycuda/compiler.py")
        }
    members = _exposed(text["src/wrapper/wrap_cudadrv.cpp"])
    for path in ("pycuda/driver.py", "pycuda/compiler.py"):
        members |= _python(text[path])
    return {"version": name, "members": members}


def _exposed(source):
    members = {
        name: _entry()
        for name in re.findall(r"DEF_SIMPLE_FUNCTION\((\w+)|DECLARE_EXC\((\w+),", source)
        for name in name
        if name
    }
    for name, rest in re.findall(r'py::def\("(\w+)",(.*?)\);', source, re.DOTALL):
        members[name] = _entry(_signature(name, rest))
    classes = re.split(r"py::(?=class_<|enum_<)", source)[1:]
    for block in classes:
        found = re.match(r'[^"]*?\(?\s*"(\w+)"', block)
        if found is None:
            continue
        methods = re.findall(r'\.def\("(\w+)"|METHOD\((\w+)\)|property\("(\w+)"', block)
        methods += re.findall(r'\.value\("(\w+)"|\.attr\("(\w+)"', block)
        members[found[1]] = _entry(members={m: _entry() for pair in methods for m in pair if m})
    return members


def _entry(doc="", members=None):
    return {"doc": doc, "members": members or {}}


def _signature(name, text):
    """Return "name(a, b = 0) -> object" from `(py::args("a"), py::arg("b")=0)`."""
    found = re.findall(r'py::args?\(((?:"\w+",? *)+)\)( *=)?', text)
    if not found:
        return ""  # arguments without names: nothing to hold calls against
    names = [(n, default) for several, default in found for n in re.findall(r"\w+", several)]
    return f"{name}({', '.join(n + (' = 0' if d else '') for n, d in names)}) -> object"


def _python(source):
    """Return the classes and functions of a Python module; keywords taken by `kwargs.pop` too."""
    members = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            starts = [n for n in node.body if getattr(n, "name", "") == "__init__"]
            inside = {n.attr: _entry() for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            inside |= {n.name: _entry() for n in node.body if isinstance(n, ast.FunctionDef)}
            for base in node.bases:  # which stand before it
                inside |= members.get(ast.unparse(base), _entry())["members"]
            members[node.name] = _entry(members=inside)
            for start in starts:
                inside["__init__"] = _entry(_python_signature("__init__", start))
        elif isinstance(node, ast.FunctionDef):
            members.setdefault(node.name, _entry(_python_signature(node.name, node)))
    return members


def _python_signature(name, node):
    arguments = [argument.arg for argument in node.args.args if argument.arg != "self"]
    first_default = len(arguments) - len(node.args.defaults)
    parts = [a + (" = 0" if i >= first_default else "") for i, a in enumerate(arguments)]
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "kwargs.pop":
            parts.append(f"{call.args[0].value} = 0")
    return f"{name}({', '.join(parts)}) -> object"
