"""`edgekit targets`: the devices that are known."""

from __future__ import annotations

import msgspec

from edgekit.cli._output import Json, print_json, print_table
from edgekit.targets import read_target, target_names


def command(json: Json = None) -> None:
    """List the devices that convert --target knows."""
    known = {name: read_target(name) for name in target_names()}
    rows = [
        (name, t.title, t.architecture, ", ".join(t.formats), t.verified)
        for name, t in known.items()
    ]
    columns = ("target", "device", "architecture", "formats", "verified")
    print_table("targets", columns, rows, json, numbers=False)
    print_json({name: msgspec.to_builtins(target) for name, target in known.items()}, json)
