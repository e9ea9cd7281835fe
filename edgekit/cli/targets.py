"""`edgekit targets`: the devices that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from edgekit.cli._here import print_here
from edgekit.cli._output import Json, print_json, print_table
from edgekit.errors import UsageError
from edgekit.targets import Fact, Support, Target, read_target, target_names

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="One device, in full.")]
Here = Annotated[bool, typer.Option("--here", help="Say which device this machine is.")]


def command(name: Name = None, here: Here = False, json: Json = None) -> None:
    """List the devices that convert --target knows, or say all that is known of one."""
    if here:
        if name is not None:
            raise UsageError(f"give NAME or --here, not both; got {name!r} and --here")
        print_here(json)
        return
    names = target_names() if name is None else [name]
    known = {each: read_target(each) for each in names}
    if name is not None:
        _print_profile(name, known[name], json)
    else:
        rows = []
        for each, t in known.items():
            first, *others = map(_run, t.runs)
            rows.append((each, t.title, t.architecture, first, t.verified))
            rows += [("", "", "", other, "") for other in others]
        columns = ("target", "device", "architecture", "runs, best first", "verified")
        print_table("targets", columns, rows, json, numbers=False)
    print_json(known, json)


def _run(support: Support) -> str:
    return f"{support.format}: {', '.join(support.backends)}"


def _print_profile(name: str, target: Target, json: str | None) -> None:
    """Print a table for each part of a profile, and last the pages that their rows come from."""
    numbers: dict[str, str] = {}  # of the sources

    def part(title: str, columns: Sequence[str], facts: Sequence[Fact]) -> None:
        rows = []
        for fact in facts:
            source = numbers.setdefault(fact.source, str(len(numbers) + 1))
            cells = [_cell(getattr(fact, column)) for column in columns]
            rows.append([*cells, f"{source}, unverified" if fact.unverified else source])
        print_table(title, [*columns, "source"], rows, json, numbers=False)

    part(name, ("title", "architecture", "verified"), [target])
    for field in target.__struct_fields__:
        value = getattr(target, field)
        several = value if isinstance(value, tuple) else (value,)
        facts = [fact for fact in several if isinstance(fact, Fact)]
        if facts:
            own = set(facts[0].__struct_fields__) - set(Fact.__struct_fields__)
            part(field, [c for c in facts[0].__struct_fields__ if c in own], facts)
    pages = [(number, page) for page, number in numbers.items()]
    print_table("sources", ("", ""), pages, json, numbers=False)


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
