"""Run one job in a fresh interpreter: a conversion, or a measurement that needs a fresh process.

Vendor converters write to the terminal, leak memory and, on some graphs, end their process
(TensorFlow's does on int8 LSTMs). So the command line stays light and gets either a result, an
`EdgeKitError`, or one that says how the child died. Jobs and results are JSON, nothing is pickled.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import edgekit.errors
from edgekit.errors import EdgeKitError, ModelError

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); total 0 means that the length is not known."""

_BOOT = (
    "import json, sys; boot = json.loads(sys.stdin.readline()); sys.path[:] = boot['path']; "
    "from edgekit.isolated import serve; serve(boot)"
)


def run_isolated(
    function: str,
    arguments: Mapping[str, Any],
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
    timeout_s: float | None = None,
    died: type[EdgeKitError] = ModelError,
) -> Any:
    """Call `function(**arguments, on_progress=…)` in a fresh interpreter and return its result.

    Args:
        function: ``package.module:name`` inside edgekit.
        arguments: JSON values.
        what: what the job does, for the message if the child dies ("converting x.keras").
        environment: variables added to the child's.
        on_progress: receives the child's progress.
        timeout_s: a child that takes longer is ended; None: it may take for ever.
        died: class of the error that says how the child ended.

    Raises:
        EdgeKitError: the class that the child raised; `died` if it was ended by a signal, by its
            own library, or for taking too long.
    """
    if not function.startswith("edgekit."):
        raise ValueError(f"only functions of edgekit run isolated; got {function!r}")
    reader, writer = os.pipe()
    job = {"path": sys.path, "function": function, "arguments": arguments, "pipe": writer}
    job |= {"what": what, "parent": os.getpid()}
    # The child's temporary files are ours to remove, also when it is killed.
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            env={**os.environ, **_QUIET, "TMPDIR": scratch, **(environment or {})},
        )
        os.close(writer)
        try:
            assert child.stdin is not None
            with _limited(child, timeout_s) as took_too_long:
                # A child that is dead already is told of below.
                with suppress(BrokenPipeError), child.stdin:
                    child.stdin.write(json.dumps(job).encode() + b"\n")
                answer = _listen(reader, on_progress)
                child.wait()
        finally:
            _end(child)
        if answer is None and took_too_long.is_set():
            raise died(f"{what}: no answer within {timeout_s:g} s, so its process was ended")
        if answer is None:
            log.seek(0)
            raise died(_obituary(what, child.returncode, log.read().decode(errors="replace")))
    if "result" in answer:
        return answer["result"]
    raise getattr(edgekit.errors, answer["error"])(answer["message"])


_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}


@contextmanager
def _limited(child: subprocess.Popen[bytes], limit_s: float | None) -> Iterator[threading.Event]:
    """Kill the child after `limit_s`; the event tells that it was."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        child.kill()

    timer = threading.Timer(limit_s or 0, end)
    if limit_s is not None:
        timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, after Ctrl-C or an error here: first politely."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:  # inside native code, which hears nothing
            child.kill()
            child.wait()


def _listen(reader: int, on_progress: Progress | None) -> dict[str, Any] | None:
    """Pass progress on until the child's end of the pipe closes; return its last word, if any."""
    answer = None
    with open(reader, encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # the child died in the middle of a word
            message = json.loads(line)
            if "progress" not in message:
                answer = message
            elif on_progress is not None:
                on_progress(*message["progress"])
    return answer


def _obituary(what: str, code: int, log: str) -> str:
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    last = [line.strip() for line in log.splitlines() if line.strip()][-1:]
    said = f"; its last line: {last[0][:300]}" if last else ""
    return f"{what}: its process was ended {how}{said}"


def serve(job: dict[str, Any]) -> None:
    """Be the child: run the job and write JSON lines to the pipe."""
    if sys.platform == "linux":  # a killed parent must not leave a conversion running
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != job["parent"]:  # killed before that took effect
            sys.exit(70)
    sys.stdin = None  # it held the job: nothing else is to be read there
    with os.fdopen(job["pipe"], "w", encoding="utf-8") as pipe:

        def say(**message: Any) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        def on_progress(phase: str, done: int, total: int) -> None:
            say(progress=[phase, done, total])

        module, _, name = job["function"].partition(":")
        try:
            result = getattr(import_module(module), name)(
                **job["arguments"], on_progress=on_progress
            )
        except EdgeKitError as error:
            say(error=type(error).__name__, message=str(error))
        except (OSError, MemoryError) as error:
            traceback.print_exc()
            what = f"{type(error).__name__}: {error}"
            say(error="EnvironmentLacks", message=f"{job['what']}: the system refused: {what}")
        except Exception:
            traceback.print_exc()
            sys.exit(70)
        else:
            say(result=result)
