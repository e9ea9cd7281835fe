"""CPU time that a fresh interpreter needs to start with EdgeKit.

Ours: `import edgekit`. Peer: `import numpy`. Each is a whole process from start to exit, user and
system time, begun in turns; `pass` is the bare interpreter, the floor that all of them contain.

It must show: `import edgekit` costs at most 1.5 times `import numpy`. For information: the whole
command line (`edgekit --help`), and everything that inference needs against the imports that a
program of its own would make for it.
"""

from __future__ import annotations

import os
import sys

from benchmarks._measure import Cost, Effort, Row, in_turns, ratio

_PROGRAMS = {
    "pass": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import edgekit": ["-c", "import edgekit"],
    "edgekit --help": ["-m", "edgekit", "--help"],
    "import cv2, ai_edge_litert": ["-c", "import cv2, ai_edge_litert.interpreter"],
    "edgekit.open": ["-c", "import edgekit, ai_edge_litert.interpreter; edgekit.open"],
}


def measure(effort: Effort) -> list[Row]:
    costs = [_process(arguments) for arguments in _PROGRAMS.values()]
    seconds = dict(zip(_PROGRAMS, in_turns(costs, 2 if effort == "tiny" else 15), strict=True))

    def row(ours: str, peer: str, at_most: float | None = None) -> Row:
        return Row(f"{ours} / {peer}", ratio(seconds[ours], seconds[peer]), at_most=at_most)

    return [
        row("import edgekit", "import numpy", at_most=1.5),
        row("pass", "import numpy"),
        row("edgekit --help", "import numpy"),
        row("edgekit.open", "import cv2, ai_edge_litert"),
    ]


def _process(arguments: list[str]) -> Cost:
    command = [sys.executable, *arguments]
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]

    def cost() -> float:
        child = os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet)
        _, status, usage = os.wait4(child, 0)
        if status != 0:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        return usage.ru_utime + usage.ru_stime

    return cost
