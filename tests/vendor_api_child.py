"""Describes the API of the module named as argument, a vendor's bindings, as JSON.

{name: {"doc": text, "members": {name: ...}}}: a class has members, nested ones too.
"""

import importlib
import inspect
import json
import sys


def described(thing, depth):
    doc = thing.__doc__ if isinstance(getattr(thing, "__doc__", None), str) else ""
    members = {}
    if inspect.ismodule(thing) or (inspect.isclass(thing) and depth < 3):
        for name in dir(thing):
            if name not in ("__class__", "__base__"):
                members[name] = described(inspect.getattr_static(thing, name), depth + 1)
    return {"doc": doc, "members": members}


module = importlib.import_module(sys.argv[1])
# One level of module: pure Python ones beside the bindings are not of interest.
names = [name for name in dir(module) if not inspect.ismodule(getattr(module, name))]
print(
    json.dumps(
        {
            "version": module.__version__,
            "members": {name: described(getattr(module, name), 1) for name in names},
        }
    )
)
