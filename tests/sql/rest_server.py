"""A REST catalogue on loopback: the handlers of Apache Iceberg's own server code behind Python's HTTP server.

What a commit requires and changes, and how a request and an answer are written, is Iceberg's; it keeps its tables in
SQLite. Here are the routes of the specification that clients ask for, its status codes, and the door: whom it lets in.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

WAREHOUSE, PREFIX, SCOPE = "lake", "of-the-lake", "write"
"""The warehouse that it serves, the part of its paths that it tells who asks for this, and the scope that it grants."""
_STATUS = {
    **dict.fromkeys(("NoSuchNamespaceException", "NoSuchTableException"), 404),
    **dict.fromkeys(("AlreadyExistsException", "CommitFailedException", "NamespaceNotEmptyException"), 409),
    **dict.fromkeys(("BadRequestException", "ValidationException", "IllegalArgumentException"), 400),
}


@dataclass(frozen=True)
class Answered:
    """A request and its status."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Refusal(Exception):
    """What it answers in the place of what was asked for."""

    status: int
    message: str
    oauth: str = ""
    """The error's name in OAuth2, which has another form."""

    @property
    def body(self) -> str:
        if self.oauth:
            return json.dumps({"error": self.oauth, "error_description": self.message})
        return _error(self.status, "Refusal", self.message)


class RestServer:
    """A server whose tables lie in a folder, and which has answered `answered`.

    `token`: of those whom it lets in. `credential`: client id, colon, secret; who has it gets the token.
    `before_commit` is called once, before the next commit of files; it may raise a Refusal.
    """

    def __init__(self, spark: SparkSession, folder: Path, token: str, credential: str = "") -> None:
        self.spark, self.token, self.credential = spark, token, credential
        self.answered: list[Answered] = []
        self.before_commit: Callable[[], None] | None = None
        jvm: Any = spark._jvm
        self._rest = jvm.org.apache.iceberg.rest
        self._mapper = _mapper(spark)
        self._tables = jvm.org.apache.iceberg.jdbc.JdbcCatalog()
        self._tables.setConf(spark.sparkContext._jsc.hadoopConfiguration())  # type: ignore[attr-defined]
        folder.mkdir()
        self.warehouse = f"file://{folder}/warehouse"
        database = f"jdbc:sqlite:{folder}/catalog.db?journal_mode=WAL&busy_timeout=20000"
        options = {"uri": database, "warehouse": self.warehouse, "jdbc.schema-version": "V1"}
        self._tables.initialize("server", jvm.java.util.HashMap(options))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._tables.close()

    def answer(self, method: str, path: str, query: dict[str, str], body: str, authorization: str) -> tuple[int, str]:
        """Status and JSON."""
        try:
            if path == "/v1/oauth/tokens":
                return 200, self._let_in({key: value[0] for key, value in parse_qs(body).items()})
            if authorization != f"Bearer {self.token}":
                raise Refusal(401, f"no entry with '{authorization}'")  # as careless as a server can be
            if path == "/v1/config":
                if query.get("warehouse", WAREHOUSE) != WAREHOUSE:
                    raise Refusal(404, f"no warehouse {query['warehouse']}")
                prefix = {"prefix": PREFIX} if "warehouse" in query else {}
                return 200, json.dumps({"defaults": {}, "overrides": prefix})
            found = self._handle(method, path.removeprefix(f"/v1/{PREFIX}").removeprefix("/v1"), body)
            return (204, "") if found is None else (200, self._mapper.writeValueAsString(found))
        except Refusal as refusal:
            return refusal.status, refusal.body
        except Py4JJavaError as error:
            kind = str(error.java_exception.getClass().getSimpleName())
            return _STATUS.get(kind, 500), _error(_STATUS.get(kind, 500), kind, str(error.java_exception.getMessage()))

    def _let_in(self, form: dict[str, str]) -> str:
        if f"{form.get('client_id')}:{form.get('client_secret')}" != self.credential or form.get("scope") != SCOPE:
            raise Refusal(401, f"no client {form}", "invalid_client")
        return json.dumps({"access_token": self.token, "token_type": "bearer"})

    def _handle(self, method: str, path: str, body: str) -> Any:
        """What Iceberg's handler returns; None if there is nothing to tell."""
        handlers, catalog = self._rest.CatalogHandlers, self._tables
        parts = [unquote(part) for part in path.strip("/").split("/")]
        jvm: Any = self.spark._jvm
        names = jvm.org.apache.iceberg.catalog
        namespace = names.Namespace.of(_texts(self.spark, parts[1].split("\x1f"))) if len(parts) > 1 else None
        table = names.TableIdentifier.of(namespace, parts[3]) if len(parts) > 3 else None
        match method, parts[0::2], len(parts):
            case "GET", ["namespaces"], 1:
                return handlers.listNamespaces(catalog, names.Namespace.empty())
            case "POST", ["namespaces"], 1:
                return handlers.createNamespace(catalog, self._read("CreateNamespaceRequest", body))
            case "GET", ["namespaces"], 2:
                return handlers.loadNamespace(catalog, namespace)
            case "HEAD", ["namespaces"], 2:
                return handlers.namespaceExists(catalog, namespace)
            case "GET", ["namespaces", "tables"], 3:
                return handlers.listTables(catalog, namespace)
            case "POST", ["namespaces", "tables"], 3:
                return handlers.createTable(catalog, namespace, self._read("CreateTableRequest", body))
            case "GET", ["namespaces", "tables"], 4:
                return handlers.loadTable(catalog, table)
            case "HEAD", ["namespaces", "tables"], 4:
                return handlers.tableExists(catalog, table)
            case "DELETE", ["namespaces", "tables"], 4:
                return handlers.dropTable(catalog, table)
            case "POST", ["namespaces", "tables"], 4:
                if self.before_commit is not None and '"add-snapshot"' in body:
                    before, self.before_commit = self.before_commit, None
                    before()
                return handlers.updateTable(catalog, table, self._read("UpdateTableRequest", body))
            case "POST", ["namespaces", "tables", "metrics"], 5:
                return None
        raise Refusal(404, f"no route {method} {path}")

    def _read(self, kind: str, body: str) -> Any:
        jvm: Any = self.spark._jvm
        return self._mapper.readValue(body, jvm.java.lang.Class.forName(f"org.apache.iceberg.rest.requests.{kind}"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open

    def __init__(self, server: RestServer, *given: Any) -> None:
        self.rest = server
        super().__init__(*given)

    def _do(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        status, text = self.rest.answer(self.command, url.path, query, body, self.headers.get("Authorization", ""))
        self.rest.answered.append(Answered(self.command, url.path, status))
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_DELETE = _do

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


def _error(status: int, kind: str, message: str) -> str:
    return json.dumps({"error": {"code": status, "type": kind, "message": message}})


def _mapper(spark: SparkSession) -> Any:
    """Iceberg's reader and writer of requests and answers, which is not public."""
    jvm: Any = spark._jvm
    gateway: Any = spark.sparkContext._gateway
    found = jvm.java.lang.Class.forName("org.apache.iceberg.rest.RESTObjectMapper")
    made = found.getDeclaredMethod("mapper", gateway.new_array(jvm.java.lang.Class, 0))
    made.setAccessible(True)
    return made.invoke(None, gateway.new_array(jvm.java.lang.Object, 0))


def _texts(spark: SparkSession, texts: list[str]) -> Any:
    gateway: Any = spark.sparkContext._gateway
    array = gateway.new_array(gateway.jvm.java.lang.String, len(texts))
    for place, text in enumerate(texts):
        array[place] = text
    return array
