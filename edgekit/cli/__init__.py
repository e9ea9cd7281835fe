"""The command line: one file a verb, whose function `command` Typer turns into the verb."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType

import typer

import edgekit
from edgekit.errors import EdgeKitError, EnvironmentLacks

_INTERRUPTED = 130
_BUG = 70  # EX_SOFTWARE of sysexits.h


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekit {edgekit.__version__}")
        raise typer.Exit


def app() -> typer.Typer:
    """Return the command line with all verbs."""
    program = typer.Typer(
        name="edgekit",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @program.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Show the version."
        ),
        verbose: bool = typer.Option(
            False, "--verbose", help="Let native libraries write to standard error too."
        ),
    ) -> None:
        """Trained networks onto edge devices: convert, run on cameras, profile."""

    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            verb = import_module(f"edgekit.cli.{file.stem}")
            program.command(name=file.stem)(verb.command)
    program.command(name="_device", hidden=True)(import_module("edgekit.cli._device").command)
    return program


def _prepare_process(*, quiet: bool) -> None:
    """Make standard streams that take any text, and let SIGTERM clean up as Ctrl-C does."""
    # Started with closed streams (a daemon), the next file opened would take their numbers.
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        continue
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(os.dup(1), "w")
    sys.stderr = sys.stderr or os.fdopen(os.dup(2), "w")
    if quiet:
        _quiet_native_libraries()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _quiet_native_libraries() -> None:
    """Keep our own standard error, and give native libraries, which write to file 2, a dead end.

    LiteRT, OpenCV and FFMPEG tell people things that they cannot use; what goes wrong reaches us
    as errors, and is told in words.
    """
    ours = os.dup(2)
    sys.stderr = os.fdopen(ours, "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 a check failed, 2 wrong use, 3 environment.

    Errors are one line on standard error; 130 says that Ctrl-C ended the work, 70 that EdgeKit has
    a bug (`--verbose` shows its traceback).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in given
    if verbose:  # before or behind the verb, which knows nothing of it
        given.remove("--verbose")
    if arguments is None:
        _prepare_process(quiet=not verbose)
    try:
        code = app()(args=given or ["--help"], prog_name="edgekit", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # The reader of our output has gone: leave quietly, as other filters do. Typer and Rich
        # would leave with 1.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        _end_output()
        return 0
    except Exception as error:
        message, code = _explain(error, given)
        if code == _BUG and verbose:
            raise
        return _fail(message, code)
    if code == _INTERRUPTED:  # some versions of Typer return it for Ctrl-C
        return _fail("interrupted; nothing was left half-written", code)
    if not given:
        return 2
    return code if isinstance(code, int) else 0


def _explain(error: Exception, given: Sequence[str]) -> tuple[str, int]:
    """Return the message and the exit code for an error; what nobody foresaw counts as our bug."""
    if isinstance(error, EdgeKitError):
        return str(error), error.exit_code
    wrong_use = getattr(error, "format_message", None)  # Typer's own errors
    if wrong_use is not None:
        return f"{wrong_use()} (see edgekit {' '.join(given[:1])} --help)", 2
    if isinstance(error, ImportError) and not str(error.name).startswith("edgekit"):
        advice = "install what runs bundles with: pip install 'edgekit[cpu]'"
        return f"a package cannot be imported ({error}); {advice}", EnvironmentLacks.exit_code
    if isinstance(error, MemoryError):
        detail = str(error) or "the system gives no more"
        return f"not enough memory: {detail}", EnvironmentLacks.exit_code
    if isinstance(error, OSError):
        where = error.filename or "the system"
        return f"{where}: {error.strerror or error}", EnvironmentLacks.exit_code
    what = f"{type(error).__name__}: {error}"
    return f"a bug of EdgeKit, please report it; --verbose shows where: {what}", _BUG


def _fail(message: str, code: int) -> int:
    _end_output()
    line = " ".join(message.split())
    print(f"edgekit: {printable(line)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """Return `text` with escapes for what steers a terminal: a file's name or content might."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _end_output() -> None:
    """Write what standard output still holds, or drop it where nobody takes it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
