"""One session of the system's OpenSSH client: how it is started, read, and what its errors mean."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

import msgspec

from edgekit.errors import EnvironmentLacks
from edgekit.profiling.remote import wire
from edgekit.profiling.remote.destination import Destination
from edgekit.profiling.remote.failures import explain

_PATIENCE_S = 60.0  # to connect, log in, and start Python on a slow board
_FAREWELL_S = 8.0  # in which the device's side ends by itself: it needs 5 at most
_ERROR_LINES = 200
_RESULT_LIMIT_BYTES = 1 << 28
_BLOCK_BYTES = 1 << 16

# As scp has them: one command, no terminal, no forwarding. Whatever else the user's configuration
# says holds, `StrictHostKeyChecking` above all. ssh itself tells of a connection that is dead.
_OPTIONS = ("-T", "-x", "-a") + tuple(
    f"-o{setting}"
    for setting in (
        "BatchMode=yes",
        "PermitLocalCommand=no",
        "ClearAllForwardings=yes",
        "RemoteCommand=none",
        "LogLevel=ERROR",
        "ServerAliveInterval=10",
        "ServerAliveCountMax=3",
    )
)


class Session:
    """`COMMAND _device` on another machine: lines, bytes, and its exit code.

    Leaving it closes the device's standard input, at which its side ends by itself.

    Args:
        destination: where to.
        command: what starts edgekit there, from `check_command`.
        on_progress: told what the device tells.

    Raises:
        EnvironmentLacks: there is no ssh client here.
    """

    def __init__(
        self, destination: Destination, command: str, on_progress: wire.OnProgress
    ) -> None:
        client = shutil.which("ssh")
        if client is None:
            raise EnvironmentLacks(
                "no ssh client on this machine; install OpenSSH's, on Debian and Ubuntu: "
                "apt install openssh-client"
            )
        self._destination, self._command = destination, command
        self._on_progress = on_progress
        self._output, self._errors = bytearray(), bytearray()
        self._said: deque[str] = deque(maxlen=_ERROR_LINES)
        self._greeted = self._ended = False
        # A group of its own: Ctrl-C is ours alone, and we let the device's side clean up.
        self._process = subprocess.Popen(
            [client, *_OPTIONS, *destination.arguments(), f"{command} _device"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._stdin, self._stdout, self._stderr = map(_open_pipe, self._pipes())
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._stdout, selectors.EVENT_READ)
        self._ready.register(self._stderr, selectors.EVENT_READ)

    def _pipes(self) -> tuple[IO[bytes] | None, ...]:
        return self._process.stdin, self._process.stdout, self._process.stderr

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._stdin.close()
            self._process.wait(_FAREWELL_S if self._greeted else 0)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._ready.close()
            self._stdout.close()
            self._stderr.close()

    def greeting(self) -> wire.Hello:
        """Return the device's first message; what its shell says before is passed over."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            line = self._line(deadline_s)
            if line.startswith(wire.GREETING):
                self._greeted = True
                hello: wire.Hello = self._decoded(line[len(wire.GREETING) :], wire.Hello)
                return hello

    def request(self) -> wire.Want | wire.Ready:
        """Return what the device asks for next."""
        wanted: wire.Want | wire.Ready = self._decoded(self._line(), wire.Want | wire.Ready)
        return wanted

    def send(self, content: bytes) -> None:
        """Write `content` to the device."""
        left = memoryview(content)
        self._ready.register(self._stdin, selectors.EVENT_WRITE)
        try:
            while left:
                if self._step():
                    left = left[os.write(self._stdin.fileno(), left[:_BLOCK_BYTES]) :]
                if self._ended:
                    raise self._failure()
        except BrokenPipeError:
            self._read_to_the_end()
            raise self._failure() from None
        finally:
            self._ready.unregister(self._stdin)

    def result(self) -> bytes:
        """Return all that the device still writes; a check that failed there wrote it too.

        Raises:
            EdgeKitError: the connection was lost, or it failed there; the device's own words.
        """
        beat_s = time.monotonic()
        while not self._ended:
            self._step(wire.BEAT_S)
            if time.monotonic() - beat_s >= wire.BEAT_S:
                beat_s = time.monotonic()
                # A full pipe holds enough of them; a closed one is told of by the output's end.
                with suppress(BlockingIOError, BrokenPipeError):
                    os.write(self._stdin.fileno(), b"\n")
        if self._exit_code() not in (0, 1) or not self._output:
            raise self._failure()
        return bytes(self._output)

    def _line(self, deadline_s: float | None = None) -> bytes:
        while (end := self._output.find(b"\n")) < 0:
            if self._ended:
                raise self._failure()
            if len(self._output) > wire.MESSAGE_LIMIT_BYTES:
                raise self._babble(self._output)
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise EnvironmentLacks(
                    f"{self._destination}: no answer within {_PATIENCE_S:.0f} s: it is off, a "
                    "firewall drops what is sent, or the login hangs; try by hand: ssh "
                    f"{self._destination.by_hand()}"
                )
            self._step(left_s)
        line = bytes(self._output[:end])
        del self._output[: end + 1]
        return line

    def _decoded(self, line: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self._babble(line) from None

    def _babble(self, line: bytes | bytearray) -> EnvironmentLacks:
        return EnvironmentLacks(
            f"{self._destination}: its edgekit answered {bytes(line[:80])!r}, which this version "
            "does not understand; install the same version on both machines"
        )

    def _step(self, timeout_s: float | None = None) -> bool:
        """Wait for the session and take what it says; return whether it can be written to."""
        writable = False
        for key, _ in self._ready.select(timeout_s):
            if key.fileobj is self._stdin:
                writable = True
            elif key.fileobj is self._stdout:
                self._take_output()
            else:
                self._take_errors()
        return writable

    def _take_output(self) -> None:
        block = os.read(self._stdout.fileno(), _BLOCK_BYTES)
        self._output += block
        if not block:
            self._ready.unregister(self._stdout)
            self._ended = True
        elif len(self._output) > _RESULT_LIMIT_BYTES:
            raise self._babble(self._output)

    def _take_errors(self) -> bool:
        """Take what is on standard error; return whether there was something."""
        try:
            block = os.read(self._stderr.fileno(), _BLOCK_BYTES)
        except BlockingIOError:
            return False
        if not block:
            if self._stderr in self._ready.get_map():
                self._ready.unregister(self._stderr)
            return False
        *lines, rest = (self._errors + block).split(b"\n")
        self._errors = rest[-wire.MESSAGE_LIMIT_BYTES :]
        for line in lines:
            told = wire.progress_of(bytes(line))
            if told is None:
                self._said.append(line.decode(errors="replace").strip())
            else:
                self._on_progress(*told)
        return True

    def _read_to_the_end(self) -> None:
        while not self._ended:
            self._step()

    def _exit_code(self) -> int:
        """Wait for ssh and take its last words; a connection that it shares may keep the pipe."""
        try:
            code = self._process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        while self._take_errors():
            continue
        return code

    def _failure(self) -> Exception:
        code = self._exit_code()
        said = [*self._said, self._errors.decode(errors="replace").strip()]
        return explain(
            str(self._destination),
            self._destination.by_hand(),
            self._command,
            code,
            [line for line in said if line],
            greeted=self._greeted,
        )


def _open_pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    return pipe
