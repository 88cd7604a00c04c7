"""Downloads from hosts that are not trusted: whatever a URL, a name server or a web server says, it stays in bounds.

- **Where to.** Only `https` on its usual port, to a host that is a name, without a user. The name is resolved once; if
  one of its addresses is not public, it is refused. The connection goes to the very address that was looked at, so a
  name server cannot give another answer in between. The certificate must be that of the name.
- **Redirects.** Each one is checked like the first URL, and there are only a few.
- **How much and how long.** One deadline covers connections, headers, redirects and the body, so a server that sends a
  byte a second does not hold us up. A body has a largest size, which holds for bodies without a stated length, too. It
  must have the length that its header states. Compressed transfer is neither asked for nor accepted.

Proxies of the environment are not used: the proxy would resolve the name, unchecked.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from geosieve.overhead.addresses import Address, is_host_name, is_public, parsed
from geosieve.runtime.errors import GeosieveError

_REDIRECTS = (301, 302, 303, 307, 308)
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_AGENT = "geosieve (photo harvest; open licences only)"
_AT_ONCE = 1 << 16


class DownloadError(GeosieveError):
    """A download that failed. `kind` is its class, as a fixed word; if `temporary`, the same may succeed later.

    `retry_after_s`: how long the server asks to wait, in seconds, if it does.
    """

    def __init__(
        self, kind: str, what: str, where: str = "", temporary: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(what, where=where)
        self.kind, self.temporary, self.retry_after_s = kind, temporary, retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return DownloadError, (self.kind, self.what, self.where, self.temporary, self.retry_after_s)


@dataclass(frozen=True)
class Limits:
    """Bounds of one download: bytes of the body, seconds in all, and redirects."""

    most_bytes: int
    seconds: float
    redirects: int = 3


@dataclass(frozen=True)
class Fetched:
    """A body, and the URL that it came from after redirects."""

    url: str
    body: bytes


def _addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says of a name."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True)
class Web:
    """Where downloads may go; the defaults are the rules above. Tests, whose servers are on loopback, give others.

    `ports`: of each scheme that is allowed. `resolve`: addresses of a host and port; OSError if there are none.
    `allows`: whether an address may be connected to. `tls`: how certificates are checked.
    """

    ports: dict[str, int] = field(default_factory=lambda: {"https": 443})
    resolve: Callable[[str, int], list[str]] = _addresses
    allows: Callable[[Address], bool] = is_public
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def get(self, url: str, limits: Limits) -> Fetched:
        """The body of a URL. DownloadError if it is refused or fails.

        Kinds: refused_url, refused_address, too_many_redirects, no_such_host, unreachable, timeout, throttled,
        server_error, gone (404, 410), http_error, bad_certificate, too_large, truncated, encoded, bad_answer. Errors
        name the URL without its query, which may hold a key.
        """
        deadline = time.monotonic() + limits.seconds
        for _ in range(limits.redirects + 1):
            found = self._ask(url, limits, deadline)
            if isinstance(found, bytes):
                return Fetched(url, found)
            url = urljoin(url, found.location)
        raise DownloadError("too_many_redirects", f"more than {limits.redirects} redirects", _shown(url))

    def _ask(self, url: str, limits: Limits, deadline: float) -> bytes | _Redirect:
        parts = self._checked(url)
        where = _shown(url)
        host, port = parts.hostname or "", self.ports[parts.scheme]
        try:
            with self._connected(host, port, parts.scheme, deadline) as connected:
                connection = http.client.HTTPConnection(host, port)
                # It would connect by itself, to what it resolves by itself, only if there were no socket.
                connection.sock = _Stream(connected, deadline)
                path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
                headers = {"Host": host, "Accept-Encoding": "identity", "User-Agent": _AGENT, "Connection": "close"}
                connection.request("GET", path, headers=headers)
                return _answer(connection.getresponse(), limits, where)
        except TimeoutError:
            raise DownloadError("timeout", "no whole answer in time", where, temporary=True) from None
        except ssl.SSLCertVerificationError as error:
            raise DownloadError("bad_certificate", error.verify_message, where) from None
        except OSError as error:
            message = f"the connection failed: {type(error).__name__}"
            raise DownloadError("unreachable", message, where, temporary=True) from None
        except (http.client.HTTPException, ValueError) as error:
            raise DownloadError("bad_answer", f"no HTTP: {type(error).__name__}", where, temporary=True) from None

    def _checked(self, url: str) -> SplitResult:
        """The parts of a URL whose host may be asked for. DownloadError if it may not be."""
        # Parsers drop blanks and control characters or read `\` as `/`, each in its own way.
        if any(not "!" <= character <= "~" or character == "\\" for character in url):
            raise DownloadError("refused_url", "a URL has no blanks, control or foreign characters, and no backslash")
        where = _shown(url)
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            raise DownloadError("refused_url", "no URL", where) from None
        if parts.scheme not in self.ports:
            raise DownloadError("refused_url", f"scheme {parts.scheme!r} is not one of {sorted(self.ports)}", where)
        if parts.netloc.lower() not in (host, f"{host}:{self.ports[parts.scheme]}"):
            raise DownloadError("refused_url", "a user, or another port than that of the scheme", where)
        if not is_host_name(host):
            raise DownloadError("refused_url", "the host is no name with a domain", where)
        return parts

    def _connected(self, host: str, port: int, scheme: str, deadline: float) -> socket.socket:
        """A socket to an address of the host that has been looked at."""
        where = f"{scheme}://{host}"
        try:
            # `dict` drops repetitions and keeps the resolver's order.
            addresses = list(dict.fromkeys(map(parsed, self.resolve(host, port))))
        except (OSError, ValueError):
            addresses = []
        if not addresses:
            raise DownloadError("no_such_host", "the name has no address", where, temporary=True)
        if not all(map(self.allows, addresses)):
            raise DownloadError("refused_address", "the name leads to an address that is not public", where)
        plain = _first_connected(addresses, port, deadline)
        if scheme != "https":
            return plain
        try:
            plain.settimeout(_left(deadline))
            return self.tls.wrap_socket(plain, server_hostname=host)
        except OSError:
            plain.close()
            raise


def _first_connected(addresses: list[Address], port: int, deadline: float) -> socket.socket:
    failure: OSError = TimeoutError()
    for address in addresses:
        try:
            return socket.create_connection((str(address), port), timeout=_left(deadline))
        except OSError as error:
            failure = error
    raise failure


@dataclass(frozen=True)
class _Redirect:
    location: str


class _Stream:
    """What http.client needs of a socket, with one deadline for all that is sent and read.

    It does not close: http.client would do so when it has read the headers.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def sendall(self, content: Any) -> None:
        self._connection.settimeout(_left(self._deadline))
        self._connection.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self._connection, self._deadline))

    def close(self) -> None:
        pass


class _Received(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv_into(buffer)


def _left(deadline: float) -> float:
    """Seconds until the deadline. TimeoutError if it is over: a timeout of 0 would mean that nothing waits."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _answer(response: http.client.HTTPResponse, limits: Limits, where: str) -> bytes | _Redirect:
    status = response.status
    fail = partial(DownloadError, where=where)
    if status in _REDIRECTS:
        location = response.headers.get("Location")
        if not location:
            raise fail("bad_answer", f"HTTP {status} without a location")
        return _Redirect(location)
    if status in _TEMPORARY:
        kind = {429: "throttled", 408: "timeout"}.get(status, "server_error")
        wait = _retry_after(response.headers.get("Retry-After"))
        raise fail(kind, f"HTTP {status}", temporary=True, retry_after_s=wait)
    if status != 200:
        raise fail("gone" if status in (404, 410) else "http_error", f"HTTP {status}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise fail("encoded", "the body is compressed, which was not asked for")
    lengths = {value.strip() for value in response.headers.get_all("Content-Length", [])}
    if len(lengths) > 1 or not all(length.isascii() and length.isdigit() for length in lengths):
        raise fail("bad_answer", "the lengths of the body that its headers state are no number")
    length = int(lengths.pop()) if lengths and not response.chunked else None
    if (length or 0) > limits.most_bytes:
        raise fail("too_large", f"more than {limits.most_bytes} bytes")
    body = bytearray()
    while piece := response.read(min(_AT_ONCE, limits.most_bytes + 1 - len(body))):
        body += piece
        if len(body) > limits.most_bytes:
            raise fail("too_large", f"more than {limits.most_bytes} bytes")
    if length is not None and len(body) != length:
        raise fail("truncated", f"{len(body)} bytes of {length} came", temporary=True)
    return bytes(body)


def _retry_after(text: str | None) -> float | None:
    """Seconds that a header Retry-After asks to wait: a number, or a date; None if it says nothing."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _shown(url: str) -> str:
    """A URL for messages: without query, user and fragment, and not too long."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]
    except ValueError:
        return "(no URL)"
