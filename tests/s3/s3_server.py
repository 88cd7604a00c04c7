"""An S3 server on loopback that remembers its requests and can be told to refuse some of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from moto.server import create_backend_app
from werkzeug.serving import make_server

# Status line, code and message as AWS writes them.
_CODES = {
    400: ("400 Bad Request", "ExpiredToken", "The provided token has expired."),
    403: ("403 Forbidden", "AccessDenied", "Access Denied"),
    404: ("404 Not Found", "NoSuchKey", "The specified key does not exist."),
    503: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
}


@dataclass(frozen=True)
class Request:
    """What the server saw. `refused` is the status of a refusal that the server was told to make."""

    method: str
    path: str
    query: str
    copy_source: str
    agent: str
    range: str
    refused: int | None

    @property
    def by_gdal(self) -> bool:
        """Whether GDAL asked, and not the JVM."""
        return self.agent.startswith("GDAL")

    @property
    def bytes(self) -> int:
        """Number of bytes of the range that was asked for; 0 if it was no range."""
        first, dash, last = self.range.removeprefix("bytes=").partition("-")
        return int(last) - int(first) + 1 if dash else 0


_BREAK_OFF = 0
"""In place of a status: the answer breaks off in its middle."""


@dataclass
class _Fault:
    status: int
    applies: Callable[[Request], bool]
    times: int


class S3Server:
    """Moto's server behind a door that counts and refuses."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        # Moto's own choice of a service looks at all of its folders for each request.
        self._apps: dict[str, Any] = {name: create_backend_app(name) for name in ("s3", "glue")}
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    @contextmanager
    def refusing(self, status: int, applies: Callable[[Request], bool], times: int = 1 << 30) -> Iterator[None]:
        """Answer `status` to the first `times` requests that `applies` chooses."""
        fault = _Fault(status, applies, times)
        self._faults.append(fault)
        try:
            yield
        finally:
            self._faults.remove(fault)

    @contextmanager
    def breaking_off(self, applies: Callable[[Request], bool], times: int) -> Iterator[None]:
        """Close the connection in the middle of the answers to the first `times` requests that `applies` chooses."""
        with self.refusing(_BREAK_OFF, applies, times):
            yield

    def since(self, mark: int) -> list[Request]:
        """The requests after the first `mark`."""
        return self.requests[mark:]

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_X_AMZ_COPY_SOURCE", ""),
            environ.get("HTTP_USER_AGENT", ""),
            environ.get("HTTP_RANGE", ""),
            None,
        )
        status = self._refusal(request)
        app = self._apps["glue" if "/glue/aws4_request" in environ.get("HTTP_AUTHORIZATION", "") else "s3"]
        if status is None:
            return app(environ, start_response)
        if status == _BREAK_OFF:
            return self._half(app(environ, start_response))
        # The body must be taken from the connection, or the client fails before it reads the answer.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        line, code, message = _CODES[status]
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        start_response(line, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [b"" if request.method == "HEAD" else body]

    @staticmethod
    def _half(answer: Iterable[bytes]) -> Iterator[bytes]:
        content = b"".join(answer)
        yield content[: len(content) // 2]
        raise ConnectionResetError

    def _refusal(self, request: Request) -> int | None:
        with self._lock:
            fault = next((f for f in self._faults if f.times > 0 and f.applies(request)), None)
            if fault is not None:
                fault.times -= 1
            status = fault.status if fault else None
            self.requests.append(Request(**{**vars(request), "refused": status}))
            return status
