"""A comparison as GitHub-flavoured Markdown: what a CI job shows of it."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.profiling.compare import words
from edgekit.profiling.compare.results import Comparison, Comparisons
from edgekit.profiling.markdown import escape


def comparison_markdown(result: Comparisons, reproduce: str) -> str:
    """Return verdicts, tables, gates, notes and the line that does it again; ends with a newline.

    Args:
        result: of at least one comparison.
        reproduce: the command line.
    """
    lines = []
    for comparison in result.comparisons:
        lines += [*_section(comparison), ""]
    bullets = [*words.gate_lines(result), *(f"Note: {note}" for note in result.notes)]
    lines += [f"- {escape(line)}" for line in bullets]
    lines += [""] if bullets else []
    lines += ["Again:", "", "```sh", reproduce.replace("\n", " "), "```"]
    return "\n".join(lines) + "\n"


def _section(comparison: Comparison) -> list[str]:
    return [
        f"### {comparison.figures[0].verdict}: {escape(comparison.b.bundle)}",
        "",
        f"**{escape(words.verdict(comparison))}**",
        "",
        *(f"- {escape(line)}" for line in words.sides(comparison)),
        "",
        *_table(words.COLUMNS, words.rows(comparison)),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rules = ["---", *["---:"] * (len(columns) - 2), "---"]
    cells = [[escape(cell) for cell in row] for row in (columns, *rows)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rules, *cells[1:])]
