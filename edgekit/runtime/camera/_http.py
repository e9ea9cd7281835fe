"""An HTTP answer that is read under a deadline: whatever a server does, no read outlasts it.

On Python's own client (`urllib.request`), which knows redirects, Basic and Digest authentication,
TLS and chunked bodies. Source of the rules: RFC 9110 and RFC 7617.
"""

from __future__ import annotations

import functools
import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from edgekit.errors import SourceError, UsageError
from edgekit.runtime.camera import without_secrets


class Deadline:
    """A moment on the monotonic clock that can be put off, and the answers that are read until it.

    Attributes:
        seconds: time that there was from the start.
        answers: to the request, to its repetition with a password, to redirected ones.
    """

    def __init__(self, seconds: float) -> None:
        self.answers: list[http.client.HTTPResponse] = []
        self.put_off(seconds)

    def put_off(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the seconds that are left; `TimeoutError` if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class _TimedReads(io.RawIOBase):
    """The bytes of a socket; each read waits until the deadline at most."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._file: Any = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        count: int | None = self._file.readinto(buffer)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    def __init__(self, deadline: Deadline, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReads(sock, deadline), 1 << 16)
        deadline.answers.append(self)


def _connection(
    kind: type[http.client.HTTPConnection], deadline: Deadline, host: str, **choices: Any
) -> http.client.HTTPConnection:
    connection = kind(host, **{**choices, "timeout": deadline.left_s()})
    connection.response_class = functools.partial(_Answer, deadline)  # type: ignore[assignment]
    return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._make: Any = functools.partial(_connection, http.client.HTTPConnection, deadline)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: Deadline, verifies: bool) -> None:
        super().__init__()
        self._tls = ssl.create_default_context()
        if not verifies:
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        self._make: Any = functools.partial(_connection, http.client.HTTPSConnection, deadline)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._make, req, context=self._tls)


def open_http(uri: str, deadline: Deadline, verifies: bool = True) -> http.client.HTTPResponse:
    """Send a GET and return the answer, whose body is yet to be read.

    Args:
        uri: ``http://`` or ``https://``, with ``user:password@`` where the server wants it.
        deadline: for the answer, and for every read of its body.
        verifies: whether the certificate of an ``https://`` server must be right.

    Raises:
        UsageError: an address that cannot be one.
        SourceError: no answer in time, or one that says no.
    """
    shown = without_secrets(uri)
    try:
        address, user, password = _credentials(uri)
        opener = _opener(address, user, password, deadline, verifies)
    except ValueError:  # its text may hold a password
        raise _no_address(shown) from None
    answer: Any = None
    try:
        answer = opener.open(address, timeout=deadline.left_s())
        return cast(http.client.HTTPResponse, answer)
    except urllib.error.HTTPError as error:
        hint = "; give user and password as http://USER:PASSWORD@…" if error.code == 401 else ""
        raise SourceError(f"cannot open {shown}: the server says {error.code}{hint}") from None
    except urllib.error.URLError as error:
        raise SourceError(f"cannot open {shown}: {_why(error.reason, deadline)}") from None
    except http.client.InvalidURL:
        raise _no_address(shown) from None
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"cannot open {shown}: {_why(error, deadline)}") from None
    except ValueError:
        raise SourceError(
            f"cannot open {shown}: the server wants another authentication than Basic or Digest"
        ) from None
    finally:
        for other in deadline.answers:
            if other is not answer:
                other.close()


def _opener(
    address: str, user: str, password: str, deadline: Deadline, verifies: bool
) -> urllib.request.OpenerDirector:
    if not urlsplit(address).hostname:
        raise ValueError("no host")
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if user:
        passwords.add_password(None, address, user, password)
    opener = urllib.request.build_opener(
        _Http(deadline),
        _Https(deadline, verifies),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    opener.addheaders = [("User-Agent", "EdgeKit"), ("Accept", "multipart/x-mixed-replace, */*")]
    return opener


def _credentials(uri: str) -> tuple[str, str, str]:
    """Return `uri` without user and password, the user, and the password."""
    scheme, _, rest = uri.partition("://")
    place, slash, path = re.split(r"([/?#]|$)", rest, maxsplit=1)
    who, _, host = place.rpartition("@")
    user, _, password = who.partition(":")
    return f"{scheme}://{host}{slash}{path}", unquote(user), unquote(password)


def _no_address(shown: str) -> UsageError:
    return UsageError(
        f"`source` {shown!r} is no address of a server; write blanks and special characters, also "
        "those of the credentials, as %XX"
    )


def _why(error: BaseException | str, deadline: Deadline) -> str:
    """Return what a failure means; nothing of the address."""
    if isinstance(error, TimeoutError):
        told = f"no answer within {deadline.seconds:g} s"
    elif isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; trust its certificate, or add #verify=off to the address"
    elif isinstance(error, OSError) and error.strerror:
        told = error.strerror
    else:
        told = "it is no HTTP server, or it broke off"
    return f"{told}; check the address, or raise --open-timeout"
