"""`edgekit pack`: a bundle as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli._output import BundlePath, Json, print_json, print_table
from edgekit.packing import pack


def command(
    bundle: BundlePath,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.zip", help="The file to write.")
    ],
    json: Json = None,
) -> None:
    """Make one file of a bundle, for shipping."""
    file = pack(bundle, output)
    size_bytes = file.stat().st_size
    print_table(f"{bundle} → {file}", ("", ""), [("size", f"{size_bytes / 1000:.1f} kB")], json)
    print_json({"file": str(file), "size_bytes": size_bytes}, json)
