"""Ratios against peers and against the physical limit, measured in turns within one run.

One file is one benchmark; its name on the command line is the file's name. It has a docstring that
says what is compared and what it must show, and a function ``measure(effort) -> list[Row]``.
Files that begin with an underscore are what the benchmarks share.
"""

from pathlib import Path


def names() -> list[str]:
    """Return the names of all benchmarks."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files)
