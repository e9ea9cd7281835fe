"""The command line: one file a verb, whose function `command` Typer turns into the verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import typer

import edgekit
from edgekit.errors import EdgeKitError

_INTERRUPTED = 130


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
    return program


def _quiet_native_libraries() -> None:
    """Keep our own standard error, and give native libraries, which write to file 2, a dead end.

    LiteRT, OpenCV and FFMPEG tell people things that they cannot use; what goes wrong reaches us
    as errors, and is told in words.
    """
    ours = os.dup(2)
    sys.stderr = os.fdopen(ours, "w", buffering=1, errors="backslashreplace")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 a check failed, 2 wrong use, 3 environment.

    Errors are one line on standard error; 130 says that Ctrl-C ended the work.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and "--verbose" not in given:
        _quiet_native_libraries()
    try:
        code = app()(args=given, prog_name="edgekit", standalone_mode=False)
    except EdgeKitError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; nothing was left half-written", _INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone: leave quietly, as other filters do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        wrong_use = getattr(error, "format_message", None)  # Typer's own errors
        if wrong_use is None:
            raise
        return _fail(f"{wrong_use()} (see edgekit {' '.join(given[:1])} --help)", 2)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    print(f"edgekit: {line}", file=sys.stderr)
    return code
