"""What machine this is, for people and for machines."""

from __future__ import annotations

import msgspec

from edgekit.cli._output import print_json, print_table
from edgekit.targets.probe import probe


def print_here(json: str | None) -> None:
    """Print which target this machine is, and the facts that say so."""
    found = probe()
    facts = msgspec.to_builtins(found) | {"gpus": ", ".join(found.gpus)}
    if found.memory_bytes is not None:
        facts["memory_bytes"] = f"{found.memory_bytes} ({found.memory_bytes / 1e9:.1f} GB)"
    rows = [(name, str(value)) for name, value in facts.items() if value not in (None, "")]
    title = f"this machine: {found.target or 'none of the targets'}"
    print_table(title, ("", ""), rows, json, numbers=False)
    print_json(found, json)
