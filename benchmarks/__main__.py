"""`python -m benchmarks [NAME ...]`: run benchmarks, print their ratios, and say what is missed.

The exit code is 1 if a median misses its limit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks import names
from benchmarks._measure import Effort, Row
from edgekit.cli._output import print_json, print_table
from edgekit.profiling.environment import environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that `arguments` name, or all, and return the exit code."""
    options = _parser().parse_args(arguments)
    effort: Effort = "tiny" if options.tiny else "full" if options.full else "normal"
    results: dict[str, list[Row]] = {}
    for name in options.names or names():
        module = import_module(f"benchmarks.{name}")
        results[name] = module.measure(effort)
        headline = str(module.__doc__).partition("\n")[0]
        columns = ("", "median", "least", "most", "limit", "")
        rows = [_cells(row) for row in results[name]]
        print_table(f"{name}: {headline}", columns, rows, options.json)
    print_json({"environment": environment(), "effort": effort, "rows": results}, options.json)
    return 1 if any(row.misses for rows in results.values() for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        choices=[[], *names()],
        help=f"one or more of {', '.join(names())}; by default all",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures too; - is stdout")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--tiny", action="store_true", help="only show that everything runs")
    effort.add_argument("--full", action="store_true", help="more rounds and rows; minutes")
    return parser


def _cells(row: Row) -> tuple[str, ...]:
    value, unit = row.value, "" if row.unit == "times" else f" {row.unit}"
    figures = (f"{figure:.2f}{unit}" for figure in (value.median, value.least, value.most))
    if row.at_most is not None:
        limit = f"at most {row.at_most:g}{unit}"
    elif row.at_least is not None:
        limit = f"at least {row.at_least:g}{unit}"
    else:
        return (row.name, *figures, "", "")
    return (row.name, *figures, limit, "MISS" if row.misses else "PASS")


if __name__ == "__main__":
    sys.exit(main())
