"""What it means when the session ends without a result: the one place that reads ssh's words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgekit.errors import CheckFailed, EdgeKitError, EnvironmentLacks

_OURS = "edgekit: "  # what `edgekit` begins its one line of failure with
_FAILED = {1: CheckFailed, 2: EdgeKitError}

# What OpenSSH's client writes (not translated), and what to do. {where} is the destination,
# {host} what is given to ssh by hand, {said} the line.
_SSH = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY",
        "its host key is not the one that is known: another machine answers, or its system was "
        "installed anew. Compare the fingerprint on the device; only then remove the old key with: "
        "{mend}",
    ),
    (
        r"Host key verification failed|host key is known for",
        "its host key is not known here, and it is not accepted unseen; connect once by hand and "
        "compare the fingerprint: ssh {host}",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication",
        "the login was refused ({said}); it takes a key, since nothing asks for a password: "
        "ssh-copy-id {host}, and ssh-add where the key has a passphrase",
    ),
    (
        r"Could not resolve hostname",
        "its name is not known ({said}); check the spelling, or give the address",
    ),
    (
        r"Connection refused",
        "no ssh server listens there ({said}); start it on the device, or check the port",
    ),
    (
        r"No route to host|Network is unreachable|timed out|Timeout",
        "it cannot be reached ({said}); check that it is on and in the same network",
    ),
)
_MEND = re.compile(r"ssh-keygen -f .+")


def explain(
    where: str, host: str, command: str, code: int, said: Sequence[str], *, greeted: bool
) -> EdgeKitError:
    """Return the error that tells why the session gave no result.

    Args:
        where: the destination, for the message.
        host: the same as words for ssh.
        command: what was to start edgekit there.
        code: that ssh ended with: 255 its own, else the device's; negative: a signal, here.
        said: lines of standard error, ssh's and the device's.
        greeted: whether the device's edgekit had answered.
    """
    ours = [line.removeprefix(_OURS) for line in said if line.startswith(_OURS)]
    if ours and ours[-1].startswith("No such command '_device'"):
        return EnvironmentLacks(
            f"{where}: its edgekit is too old for `--on`; install this machine's version there"
        )
    if ours and code != 255:
        return _FAILED.get(code, EnvironmentLacks)(f"{where}: {ours[-1]}")
    last = said[-1] if said else ""
    if greeted:
        return EnvironmentLacks(
            f"{where}: the connection was lost in the middle, or its edgekit was killed "
            f"({last or f'exit code {code}, without a word'}); the device's side ends by itself, "
            "and what was sent is kept: run the same again"
        )
    if code in (126, 127):
        return EnvironmentLacks(
            f"{where}: no edgekit there ({last or command}); install it on the device with: "
            "pip install 'edgekit[cpu]', or say where it is: --remote-command '~/.venv/bin/edgekit'"
        )
    if code != 255:
        return EnvironmentLacks(
            f"{where}: {command!r} there is no edgekit that can be worked with: it ended with exit "
            f"code {code} ({last or 'without a word'})"
        )
    return EnvironmentLacks(f"{where}: {_words_of_ssh(said, host)}")


def _words_of_ssh(said: Sequence[str], host: str) -> str:
    for pattern, meaning in _SSH:
        lines = [line for line in said if re.search(pattern, line)]
        if lines:
            mend = next((found[0] for line in said if (found := _MEND.search(line))), "")
            mend = mend or f"ssh-keygen -R {host.split()[-1]}"
            return meaning.format(said=lines[-1], host=host, mend=mend)
    return f"ssh failed: {said[-1] if said else 'without a word'}; try by hand: ssh {host}"
