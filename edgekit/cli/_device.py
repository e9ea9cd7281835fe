"""`edgekit _device`: what `edgekit profile --on` starts on the device; nothing for people."""

from __future__ import annotations

import os
import sys

import typer

from edgekit.cli import main
from edgekit.errors import UsageError


def command() -> None:
    """Take a bundle and options from standard input and profile it; `edgekit profile --on`."""
    from edgekit.profiling.remote import device, wire

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("`_device` is started by edgekit profile --on, on another machine")
    # Nothing that the work starts may read what is meant for us.
    reader = os.dup(0)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    device.own_group()
    with device.order(reader, sys.stdout.fileno()) as (folder, arguments):
        device.end_with(reader)
        wire.open_here()
        code = main(["profile", str(folder), *arguments, "--json", "-"])
    raise typer.Exit(code)
