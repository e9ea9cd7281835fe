"""`edgekit unpack`: a shipped file back to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli._output import Json, print_json, print_table
from edgekit.packing import unpack


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="What edgekit pack wrote.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="NAME.edgekit", help="The bundle to write.")
    ],
    json: Json = None,
) -> None:
    """Unpack a shipped bundle and verify it."""
    bundle = unpack(file, output)
    rows = [(name, digest[:16]) for name, digest in sorted(bundle.manifest.files.items())]
    print_table(f"{file} → {output}", ("file", "SHA-256"), rows, json)
    print_json({"bundle": str(bundle.path), "files": bundle.manifest.files}, json)
