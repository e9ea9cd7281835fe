"""Where a remote profile goes: what is let through to ssh and to the device's shell."""

from __future__ import annotations

import re

import msgspec

from edgekit.errors import UsageError

_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+\\-]*"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ADDRESS = r"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?"
_DESTINATION = re.compile(
    rf"(?:(?P<user>{_USER})@)?"
    rf"(?:(?P<address>{_ADDRESS})|(?:\[(?P<bracketed>{_ADDRESS})\]|(?P<name>{_NAME}))(?::(?P<port>\d+))?)"
)
_COMMAND = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+=:@%, -]*")


class Destination(msgspec.Struct, frozen=True):
    """Where ssh connects to: a host or a name of the user's ssh configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read ``[user@]host[:port]``; the host may be an IPv6 address, in brackets with a port.

        Raises:
            UsageError: anything else, above all what ssh would take for an option.
        """
        found = _DESTINATION.fullmatch(text)
        port = int(found["port"]) if found and found["port"] else None
        if found is None or (port is not None and not 0 < port < 65536):
            raise UsageError(
                f"`on` must look like user@host or user@host:22, with a port of 1 to 65535; got "
                f"{text!r}. Everything else belongs into ~/.ssh/config"
            )
        host = found["address"] or found["bracketed"] or found["name"]
        return cls(host, found["user"], port)

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host and self.port is not None else self.host
        return f"{user}{host}" if self.port is None else f"{user}{host}:{self.port}"

    def arguments(self) -> list[str]:
        """Return what tells ssh the destination; nothing in it can be an option."""
        user = "" if self.user is None else f"{self.user}@"
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*port, "--", f"{user}{self.host}"]

    def by_hand(self) -> str:
        """Return the same as a person types it behind ``ssh``."""
        return " ".join(word for word in self.arguments() if word != "--")


def check_command(command: str) -> str:
    """Return `command`, which the device's shell will read, if it is words and nothing else.

    Raises:
        UsageError: it has characters that a shell acts on, but for ``~``.
    """
    if not _COMMAND.fullmatch(command):
        raise UsageError(
            f"`remote-command` must be the words that start edgekit there, like "
            f"~/.venv/bin/edgekit or python3 -m edgekit; got {command!r}. Put more into a script"
        )
    return command
