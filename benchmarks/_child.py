"""Programs of other libraries, in processes and environments of their own, that work when asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


def python_with(name: str, package: str, variable: str, install: str) -> str | None:
    """Return the Python that has a peer's package, or None; then it is said what to do.

    Args:
        name: of the peer, for people.
        package: that is imported.
        variable: of the environment, that may name another Python.
        install: why it needs an environment of its own, and what to install there.
    """
    named = os.environ.get(variable)
    if named:
        return named
    if find_spec(package) is not None:
        return sys.executable
    print(
        f"note: {name} is left out, since {package.replace('_', '-')} is not installed; {install}, "
        f"and name its Python in {variable}"
    )
    return None


@contextmanager
def child(
    python: str, module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start `python -m module`, and await its end when its standard input ends.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=_ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process:
            try:
                yield process
            except BaseException:
                process.kill()
                log.seek(0)
                sys.stderr.write(log.read()[-4000:])
                raise
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{log.read()[-4000:]}")


def ask(process: subprocess.Popen[str], line: str = "") -> Any:
    """Send one line and return the answer; without one it waits until the process is ready."""
    assert process.stdin is not None and process.stdout is not None
    if line:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("a program ended too early; what it said is on standard error")
    return json.loads(answer)


@contextmanager
def answering() -> Iterator[Callable[[Any], None]]:
    """Keep the child's standard output for answers: what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        warnings.simplefilter("ignore")
        yield lambda value: print(json.dumps(value), file=stream, flush=True)
