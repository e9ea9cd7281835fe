"""Who may look: this machine without a token, anybody else with one."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from edgekit.errors import UsageError

TOKEN_VARIABLE = "EDGEKIT_WEB_TOKEN"  # noqa: S105
COOKIE = "edgekit_session"
_LEAST_TOKEN = 16


class Place(msgspec.Struct, frozen=True):
    """Where the page is served.

    Attributes:
        host: name or address to bind.
        port: TCP port; 0: any free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, uri: str) -> Place:
        """Read ``http://HOST:PORT``, ``http://HOST`` (port 8080) or ``http://:PORT`` (loopback).

        Raises:
            UsageError: anything else; a token has no place in an address, which logs keep.
        """
        try:
            parts = urlsplit(uri)
            host, port = parts.hostname or "127.0.0.1", parts.port
        except ValueError as error:
            raise UsageError(
                f"`sink` cannot be read ({error}); write http://127.0.0.1:8080"
            ) from error
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError(
                "`sink` http://HOST:PORT takes no user, password or query, which would be logged; "
                f"put a token into the environment variable {TOKEN_VARIABLE}"
            )
        if parts.path not in ("", "/"):
            raise UsageError(f"`sink` http://HOST:PORT takes no path; got {parts.path!r}")
        return cls(host, 8080 if port is None else port)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Gate:
    """Decides on requests.

    Args:
        place: where the page is served.
        token: what others must know, or None.

    Raises:
        UsageError: others could look without a token, or guess it.
    """

    def __init__(self, place: Place, token: str | None) -> None:
        if token is None and not place.is_loopback:
            raise UsageError(
                f"`sink` http://{place.host}:{place.port} can be reached from other machines: set "
                f"{TOKEN_VARIABLE} to a secret of at least {_LEAST_TOKEN} characters, or write "
                f"http://127.0.0.1:{place.port}"
            )
        if token is not None and len(token) < _LEAST_TOKEN:
            raise UsageError(
                f"{TOKEN_VARIABLE} has {len(token)} characters; a token of fewer than "
                f"{_LEAST_TOKEN} can be guessed: take one from `openssl rand -hex 16`"
            )
        self._token = token
        # The browser gets this in place of the token, and it ends with the process.
        self.session = secrets.token_urlsafe(32)

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return self._token is None

    def knows_token(self, given: str) -> bool:
        """Compare in a time that depends on neither value."""
        return self._token is not None and _same(given, self._token)

    def admits(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request may see anything but the form that asks for the token."""
        if self._token is None:
            # A page elsewhere can make its own name point here (DNS rebinding); not change `Host`.
            return _is_local_name(headers.get("host", ""))
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.knows_token(given.strip())
        return _same(cookies.get(COOKIE, ""), self.session)


def token_from_environment() -> str | None:
    """Return the token, or None if the variable is not set or empty."""
    return os.environ.get(TOKEN_VARIABLE) or None


def _same(one: str, other: str) -> bool:
    hashes = (
        hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (one, other)
    )
    return hmac.compare_digest(*hashes)


def _is_local_name(host: str) -> bool:
    return re.fullmatch(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", host) is not None
