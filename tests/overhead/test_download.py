"""Downloads stay in bounds, whatever URLs, name servers and web servers say."""

from __future__ import annotations

import gzip
import pickle
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from photo_servers import LOOPBACK, on_loopback

from geosieve.overhead.download import DownloadError, Limits, Web

LIMITS = Limits(most_bytes=1000, seconds=1.0, redirects=2)
Talk = Callable[[socket.socket, str], None]


@contextmanager
def server(talk: Talk, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback that reads a request and hands it with the connection to `talk`. Yields its port."""
    listening = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        try:
            with tls.wrap_socket(connection, server_side=True) if tls else connection as mine:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += mine.recv(4096) or b"\r\n\r\n"
                talk(mine, request.decode())
        except OSError:
            pass  # the client has hung up, as it should

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.close()


def says(*pieces: bytes, pause: float = 0.0) -> Talk:
    def talk(connection: socket.socket, request: str) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return talk


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> Talk:
    return says("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body)


def failure(web: Web, url: str = "http://a.test/x?api_key=SECRET", limits: Limits = LIMITS) -> DownloadError:
    began = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        web.get(url, limits)
    assert time.monotonic() - began < limits.seconds + 1
    assert "SECRET" not in f"{caught.value} {caught.value!r}"
    return caught.value


def kind_of(talk: Talk) -> str:
    with server(talk) as port:
        return failure(on_loopback(port)).kind


def test_a_body_comes_as_it_is_and_the_request_asks_for_no_compression() -> None:
    requests: list[str] = []

    def talk(connection: socket.socket, request: str) -> None:
        requests.append(request)
        answer(b"abc", "200 OK", "Content-Length: 3")(connection, request)

    with server(talk) as port:
        assert on_loopback(port).get("http://a.test/p/q?x=1", LIMITS).body == b"abc"
    lines = requests[0].lower().splitlines()
    assert lines[0] == "get /p/q?x=1 http/1.1"
    assert {"host: a.test", "accept-encoding: identity", "connection: close"} <= set(lines)


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.test/", "ftp://a.test/", "file:///etc/passwd", "gopher://a.test/", "//a.test/", "a.test", ""),
        *("https://user@a.test/", "https://user:pw@a.test/", "https://a.test@b.test/", "https://a.test:8443/"),
        *("https://a.test:80/", "https://a.test:/", "https://a.test:x/", "https://a.test:99999/", "https://"),
        *("https://localhost/", "https://127.0.0.1/", "https://[::1]/", "https://2130706433/", "https://0x7f.1/"),
        *("https://0177.0.0.1/", "https://127.1/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/"),
        *(
            "https://a.test\\@b.test/",
            "https://a.test /",
            "https://a.te\tst/",
            "https://a.test/\r\nX: y",
            "https://ä.test/",
        ),
        *("https://１２７.0.0.1/", "https://%31%32%37.0.0.1/", "https://a.test./", "https://[v1.a]/", "https://[/"),
    ],
)
def test_urls_that_lead_elsewhere_are_refused_before_any_name_is_resolved(url: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("no name may be resolved")

    assert failure(Web(resolve=resolve), url).kind == "refused_url"


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["fe80::1%1"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::10.0.0.1"],
        ["2002:a00:1::"],
        ["8.8.8.8", "192.168.0.1"],
        ["192.168.0.1", "8.8.8.8"],
    ],
)
def test_a_name_with_an_address_that_is_not_public_is_refused(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be connected to")

    monkeypatch.setattr(socket, "create_connection", connect)
    error = failure(Web(resolve=lambda host, port: addresses), "https://a.test/")
    assert error.kind == "refused_address" and not error.temporary


def test_the_system_resolver_and_the_rules_are_the_default() -> None:
    assert failure(Web(), "https://ip6-localhost.invalid/", replace(LIMITS, seconds=30)).kind == "no_such_host"


def test_a_second_answer_of_the_name_server_is_not_asked_for() -> None:
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    peers: list[str] = []

    def talk(connection: socket.socket, request: str) -> None:
        peers.append(connection.getsockname()[0])
        answer(b"", "200 OK", "Content-Length: 0")(connection, request)

    with server(talk) as port:
        web = on_loopback(port, resolve=lambda host, port: answers.pop(0))
        web.get("http://a.test/", LIMITS)
        assert peers == ["127.0.0.1"] and len(answers) == 1
        assert failure(web, "http://a.test/").kind == "refused_address"  # now it leads elsewhere


def test_redirects_are_followed_and_each_is_checked() -> None:
    def to(location: str) -> Talk:
        return answer(b"", "302 Found", f"Location: {location}", "Content-Length: 0")

    def talk(connection: socket.socket, request: str) -> None:
        path = request.split()[1]
        if path == "/b":
            answer(b"here", "200 OK", "Content-Length: 4")(connection, request)
        else:
            to({"/a": "/b", "/loop": "/loop", "/in": "http://127.0.0.1/", "/file": "file:///etc/passwd"}[path])(
                connection, request
            )

    with server(talk) as port:
        names = {"a.test": [LOOPBACK], "inside.test": ["10.0.0.1"]}
        web = on_loopback(port, resolve=lambda host, port: names[host])
        fetched = web.get("http://a.test/a", LIMITS)
        assert (fetched.body, fetched.url) == (b"here", "http://a.test/b")
        assert failure(web, "http://a.test/loop").kind == "too_many_redirects"
        assert failure(web, "http://a.test/in").kind == "refused_url"
        assert failure(web, "http://a.test/file").kind == "refused_url"
    with server(to("http://inside.test/")) as port:
        web = on_loopback(port, resolve=lambda host, port: names[host])
        assert failure(web, "http://a.test/").kind == "refused_address"
        assert failure(web, "http://a.test/", replace(LIMITS, redirects=0)).kind == "too_many_redirects"
    assert kind_of(answer(b"", "302 Found", "Content-Length: 0")) == "bad_answer"


def test_bodies_that_lie_about_their_length() -> None:
    assert kind_of(answer(b"abc", "200 OK", "Content-Length: 4")) == "truncated"
    assert kind_of(answer(b"abc", "200 OK", "Content-Length: -1")) == "bad_answer"
    assert kind_of(answer(b"abc", "200 OK", "Content-Length: 3", "Content-Length: 9")) == "bad_answer"
    assert kind_of(answer(b"abc", "200 OK", "Content-Length: 1e2")) == "bad_answer"
    assert kind_of(answer(b"5\r\nabc", "200 OK", "Transfer-Encoding: chunked")) == "bad_answer"
    assert kind_of(answer(b"zz\r\nabc", "200 OK", "Transfer-Encoding: chunked")) == "bad_answer"


def test_bodies_that_are_too_large_or_endless() -> None:
    assert kind_of(answer(b"", "200 OK", "Content-Length: 1001")) == "too_large"
    assert kind_of(answer(b"x" * 1001)) == "too_large"
    assert kind_of(answer(b"3e9\r\n" + b"x" * 1001, "200 OK", "Transfer-Encoding: chunked")) == "too_large"
    endless = (b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 10_000] * 1000)
    assert kind_of(says(*endless)) == "too_large"
    with server(answer(b"x" * 1000)) as port:
        assert len(on_loopback(port).get("http://a.test/", LIMITS).body) == 1000


def test_one_deadline_covers_everything() -> None:
    drip = [b"x"] * 100
    assert kind_of(says(b"HTTP/1.1 200 OK\r\n\r\n", *drip, pause=0.1)) == "timeout"
    assert kind_of(says(b"HTTP/1.1 200 OK\r\nX: ", *drip, pause=0.1)) == "timeout"
    assert kind_of(says(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 100, pause=0.1)) == "timeout"
    assert kind_of(lambda connection, request: time.sleep(3)) == "timeout"
    slow = says(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    def late(connection: socket.socket, request: str) -> None:
        time.sleep(0.6)
        slow(connection, request)

    assert kind_of(late) == "timeout"


def test_compressed_bodies_are_refused() -> None:
    bomb = gzip.compress(b"\0" * 100_000)
    assert len(bomb) < 1000
    assert kind_of(answer(bomb, "200 OK", "Content-Encoding: gzip", f"Content-Length: {len(bomb)}")) == "encoded"


def test_endless_headers_and_what_is_no_http() -> None:
    assert kind_of(says(b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 200, b"\r\n")) == "bad_answer"
    assert kind_of(says(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")) == "bad_answer"
    assert kind_of(says(b"SSH-2.0-OpenSSH\r\n\r\n")) == "bad_answer"


@pytest.mark.parametrize(
    ("status", "kind", "temporary"),
    [
        *[("404 Not Found", "gone", False), ("410 Gone", "gone", False), ("403 Forbidden", "http_error", False)],
        *[("500 Error", "server_error", True), ("503 Unavailable", "server_error", True)],
        *[("429 Too Many", "throttled", True), ("206 Partial Content", "http_error", False)],
    ],
)
def test_a_status_has_a_class(status: str, kind: str, temporary: bool) -> None:
    with server(answer(b"", status, "Retry-After: 17", "Content-Length: 0")) as port:
        error = failure(on_loopback(port))
    assert (error.kind, error.temporary, error.retry_after_s) == (kind, temporary, 17.0 if temporary else None)
    again = pickle.loads(pickle.dumps(error))
    assert (again.kind, again.temporary, str(again)) == (kind, temporary, str(error))


def test_nobody_listens() -> None:
    with socket.create_server((LOOPBACK, 0)) as held:
        port = held.getsockname()[1]
    error = failure(on_loopback(port))
    assert (error.kind, error.temporary) == ("unreachable", True)


def test_the_certificate_must_be_that_of_the_name_though_an_address_is_connected_to(tmp_path: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a.test"),
            *("-addext", "subjectAltName=DNS:a.test", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    names: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    tls.sni_callback = lambda _, name, __: names.append(name)
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    with server(answer(b"abc", "200 OK", "Content-Length: 3"), tls) as port:
        web = on_loopback(port, ports={"https": port}, tls=trusting)
        assert web.get("https://a.test/", LIMITS).body == b"abc"
        assert names == ["a.test"]
        error = failure(web, "https://b.test/")
        assert (error.kind, error.temporary) == ("bad_certificate", False)
        strict = on_loopback(port, ports={"https": port})
        assert failure(strict, "https://a.test/").kind == "bad_certificate"
