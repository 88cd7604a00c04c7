"""The queries in deploy/sql on DuckDB and on Trino, over Hive tables and over Iceberg, against answers by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import small_queries as small
import sqlglot
import trino_server
from rest_server import WAREHOUSE, RestServer
from workspace import Workspace

from geosieve.geo.sphere import haversine_km
from geosieve.runtime.errors import EXIT_DONE
from geosieve.sql import duckdb as views
from geosieve.sql import hive
from geosieve.sql.config import RegisterConfig
from geosieve.sql.register import JOB, register_tables
from geosieve.tables.schemas import IMAGE_SUMMARY

QUERIES = Path(__file__).parents[2] / "deploy" / "sql"
NAMES = sorted(path.stem for path in QUERIES.glob("*.sql"))
ENGINES = ("duckdb", "hive", "iceberg")
TOKEN = "GEOSIEVE_TEST_TOKEN"
"""Variable of the tests' environment; see tests/conftest.py."""
Run = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("queries") / "tables"
    small.write(root)
    return root


@pytest.fixture(scope="session")
def trino(
    tables: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[trino_server.Trino]:
    """A server that sees the tables by our Iceberg catalogue, by a REST catalogue, and as plain Hive tables."""
    trino_server.build()
    root = tmp_path_factory.mktemp("trino")
    rest = RestServer(request.getfixturevalue("spark"), root / "rest", os.environ[TOKEN])
    request.addfinalizer(rest.close)
    work = Workspace(root)
    work.jobs = {JOB: (RegisterConfig, register_tables)}
    path = root / "register.json"
    for catalog in (
        {"kind": "sqlite", "folder": str(root / "catalog")},
        {"kind": "rest", "uri": rest.uri, "warehouse": WAREHOUSE, "token_variable": TOKEN},
    ):
        path.write_text(json.dumps({"root": str(tables), "catalog": catalog}))
        code, report = work.command(JOB, path)
        assert code == EXIT_DONE, report["error"]
    way = [
        *(f"iceberg.rest-catalog.uri={rest.uri}", f"iceberg.rest-catalog.warehouse={WAREHOUSE}"),
        *("iceberg.rest-catalog.security=OAUTH2", f"iceberg.rest-catalog.oauth2.token=${{ENV:{TOKEN}}}"),
    ]
    with trino_server.started(root / "server", root / "catalog", way) as server:
        server.sql("CREATE SCHEMA hive.geosieve")
        for statement in hive.statements(str(tables), f"local://{tables}", "trino", "hive.geosieve"):
            server.sql(statement)
        yield server


@pytest.fixture(params=ENGINES)
def run(request: pytest.FixtureRequest, tables: Path) -> Run:
    """Runs a statement on an engine, whose tables need no prefix."""
    if request.param == "duckdb":
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        views.register(connection, str(tables))
        return lambda text: connection.execute(text).fetchall()
    server = request.getfixturevalue("trino")
    return lambda text: server.sql(text, request.param, "geosieve")


def query(name: str, parameters: str | None = None, parts: str | None = None) -> str:
    """A ready query, with other parameters, and with what `geosieve.sql.place` prints for its place."""
    text = (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
    if parameters is not None:
        text, n = re.subn(r"(WITH parameters \([^)]*\) AS \(VALUES )\(.*?\)\)", rf"\1({parameters}))", text)
        assert n == 1
    if parts is not None:
        wanted = parts if "place (" in text else parts[parts.index("ranges (") :]
        old = r"(place \(south.*?\n)?ranges \(first_leaf, last_leaf\) AS \(VALUES \(1, 2\)\),"
        text, n = re.subn(old, wanted, text)
        assert n == 1
    return text


def printed(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "geosieve.sql.place", *options], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="session")
def bay(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A triangle around the corner of Spain's and France's boxes."""
    path = tmp_path_factory.mktemp("place") / "bay.geojson"
    ring = [[-5, 40], [5, 40], [5, 45], [-5, 40]]
    path.write_text(
        json.dumps({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}})
    )
    return printed("--polygon", str(path))


def approx(rows: list[tuple[Any, ...]]) -> list[Any]:
    return [tuple(pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for v in row) for row in rows]


def test_a_rest_catalogue_has_the_same_rows(trino: trino_server.Trino) -> None:
    for table in ("image_summary", "ranked_regions", "atom_cells"):
        there, here = (trino.sql(f"SELECT * FROM {table}", catalog, "geosieve") for catalog in ("rest", "iceberg"))
        assert there and sorted(map(str, there)) == sorted(map(str, here))


def test_the_regions_with_most_photographs(run: Run) -> None:
    found = run(query("most_photos"))
    assert found == approx(
        [
            (-17.5, 178.5, 300.0, "h", 2, 2, 1.0),  # a1, moved there by its latest run, and a3
            (30.0, 0.0, 400.0, "h", 3, 2, 0.75),  # b1, and a4, which is a copy of it
            (47.0, 4.0, 200.0, "h", 1, 1, 0.9375),
        ]
    )


def test_answers_that_touch_a_box(run: Run) -> None:
    # a2's second region touches it, too, but is not of its 90 % answer; the box of b1's region is wider than it.
    assert run(query("touches_box")) == [("a", "a2", 0.9375, 1), ("a", "a4", 0.75, 1), ("b", "b1", 0.75, 1)]
    whole = run(query("touches_box", "'example', 2, 40.0, -5.0, 45.0, 5.0"))
    assert whole == [("a", "a2", 1.0, 1), ("a", "a4", 0.75, 1), ("b", "b1", 0.75, 1)]
    across = run(query("touches_box", "'example', 0.9, -18, 179, -16, -179"))
    assert across == [("a", "a1", 1.0, 1), ("a", "a3", 1.0, 1), ("a", "a4", 0.25, 2), ("b", "b1", 0.25, 2)]
    assert run(query("touches_box", "'example', 0.9, -18, -179, -16, 170")) == across
    assert run(query("touches_box", "'example', 0.9, -90, -180, -80, 180")) == []


def test_answers_that_touch_a_place(run: Run, bay: str) -> None:
    assert run(query("touches_place", None, bay)) == [("a", "a2", 0.9375, 1)]
    box = printed("--box", "40", "-5", "45", "5", "--level", "6")
    assert run(query("touches_place", None, box)) == [("a", "a2", 0.9375, 1)]
    across = printed("--box", "-18", "179", "-16", "-179")
    found = [("a", "a1", 1.0, 1), ("a", "a3", 1.0, 1), ("a", "a4", 0.25, 2), ("b", "b1", 0.25, 2)]
    assert run(query("touches_place", None, across)) == found
    # One of the two places of b1's first region.
    assert run(query("touches_place", None, printed("--box", "2", "-56", "3", "-55"))) == [
        ("a", "a4", 0.75, 1),
        ("b", "b1", 0.75, 1),
    ]


def test_joined_regions_have_no_cells_so_their_boxes_count(run: Run, bay: str) -> None:
    assert run(query("touches_place", "'joined', 0.9", bay)) == [("c", "c1", 1.0, 1)]


def test_regions_whose_centres_lie_in_a_place(run: Run) -> None:
    spain = printed("--box", "39", "-6", "41", "-4")
    found = run(query("centred_in_place", None, spain))
    assert found == [("a", "a1", 1, 0.5, 100.0, 40.0, -5.0), ("a", "a2", 2, 0.0625, 100.0, 40.0, -5.0)]


def test_claims_that_fail(run: Run) -> None:
    # a1's claim failed in the run before the latest.
    assert [row[:3] for row in run(query("failed_claims"))] == [("a", "a2", 0.01)]
    found = run(query("failed_claims", "'example', 0.05"))
    assert [row[:3] for row in found] == [("a", "a2", 0.01), ("b", "b1", 0.04)]


def test_quality_by_source(run: Run) -> None:
    assert run(query("quality_by_source")) == [("a", 4, 0, 0, 0, 1, 25.0, 55.0), ("b", 3, 1, 1, 0, 0, 5.0, 7.0)]


def test_rejects_by_class(run: Run) -> None:
    assert run(query("rejects_by_class")) == [
        ("rank_regions", "example", small.R2, "read", "bad", 2, "BAD"),
        ("ingest_images", "a", small.R1, "read", "lost", 1, "LOST"),
        ("rank_regions", "example", small.R2, "read", "short", 1, "SHORT"),
    ]


def test_what_changed_since_the_run_before(run: Run) -> None:
    spain, france, fiji, far = small.CENTRES.values()
    km = float(haversine_km(*spain, *fiji))
    gone = [("a", "a2", france), ("b", "b1", far), ("b", "b2", (None, None)), ("b", "b3", far)]
    expected = [(source, image, "gone", None, *at, None, None) for source, image, at in gone]
    expected += [("a", "a1", "moved", km, *spain, *fiji), ("a", "a4", "new", None, None, None, *far)]
    assert run(query("changes")) == approx(expected)
    assert ("a", "a3", "moved") in [row[:3] for row in run(query("changes", "'example', 5.0"))]


def test_every_table_reads_with_its_types(run: Run) -> None:
    assert run("SELECT image_id, extract(hour FROM captured_at) FROM images ORDER BY image_id") == [
        ("a1", 23),
        ("a2", None),
    ]
    assert run("SELECT run_id, s2_id, halves, bands FROM labels ORDER BY run_id") == [
        ("1", -5, 7, None),
        ("2", -5, 7, 8),
    ]
    assert run("SELECT source, run_id FROM images WHERE image_id = 'a1'") == [("a.b", small.R1)]
    ((box, geometry),) = run("SELECT bbox.xmin, geometry FROM regions_of_partition")
    assert box == 1.0 and bytes(geometry).hex() == "0101000000000000000000f03f0000000000000040"


def test_a_run_in_the_making_is_not_seen(run: Run) -> None:
    assert run("SELECT DISTINCT run_id FROM ranked_regions WHERE ranking = 'example' ORDER BY 1") == [
        (small.R1,),
        (small.R2,),
    ]
    assert run("SELECT count(*) FROM image_summary WHERE image_id = 'a9'") == [(0,)]


@pytest.mark.parametrize("catalog", ["hive", "iceberg"])
def test_trino_reads_only_the_rows_of_a_run_that_is_asked_for(trino: trino_server.Trino, catalog: str) -> None:
    every = "SELECT sum(probability) FROM ranked_regions"
    _, stats = trino.run(every, catalog, "geosieve")
    assert stats["processedRows"] == 12
    _, one = trino.run(f"{every} WHERE ranking = 'example' AND run_id = '{small.R2}'", catalog, "geosieve")
    assert one["processedRows"] == 2 and one["physicalInputBytes"] < stats["physicalInputBytes"]


@pytest.mark.parametrize("name", NAMES)
def test_athena_can_parse_it(name: str) -> None:
    assert sqlglot.parse_one(query(name), read="athena").sql(dialect="athena")


def test_the_tables_for_athena_are_those_of_the_runs(tables: Path) -> None:
    statements = list(hive.statements(str(tables), "s3://bucket/tables", "athena"))
    creates = [s for s in statements if s.startswith("CREATE")]
    partitions = [s for s in statements if s.startswith("ALTER")]
    assert len(partitions) == len(list(tables.rglob("_SUCCESS"))) and len(creates) == 7
    for statement in statements:
        assert not isinstance(sqlglot.parse_one(statement, read="hive"), sqlglot.exp.Command) or "ALTER" in statement
    (labels,) = [sqlglot.parse_one(s, read="hive") for s in creates if "`labels`" in s]
    told = {column.name: column.kind.sql("hive") for column in labels.find_all(sqlglot.exp.ColumnDef)}
    assert told["s2_id"] == told["bands"] == "BIGINT" and told["lat"] == "DOUBLE" and told["run_id"] == "STRING"
    assert any(
        f"run_id={small.R1}/'" in s and "s3://bucket/tables/ranked_regions/ranking=example/" in s for s in partitions
    )
    assert not any(small.R3 in s for s in statements)


def test_the_views_are_printed_without_spark(tables: Path) -> None:
    command = [sys.executable, "-m", "geosieve.sql.duckdb", str(tables)]
    environment = {**os.environ, "JAVA_HOME": "/nowhere", "PATH": "/nowhere"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    connection = duckdb.connect()
    connection.execute(done.stdout)
    assert connection.execute("SELECT count(*) FROM ranked_regions").fetchall() == [(12,)]
    assert connection.execute("SELECT count(*) FROM evaluations").fetchall() == [(0,)]  # it has no run


def test_runs_that_another_one_replaces_are_in_no_view_and_no_hive_table(tmp_path: Path) -> None:
    for run_id in (small.R1, small.R2, small.R3):
        rows = [small.summary(run_id, "a", "a1")]
        leaf = small.commit(tmp_path, IMAGE_SUMMARY, {"ranking": "example", "run_id": run_id}, rows)
    told = json.loads((leaf / "_SUCCESS").read_text())
    (leaf / "_SUCCESS").write_text(json.dumps({**told, "replaces": {"runs": {small.R1: "a"}, "when": None}}))
    connection = duckdb.connect()
    views.register(connection, str(tmp_path))
    found = connection.execute("SELECT run_id FROM image_summary ORDER BY run_id").fetchall()
    assert found == [(small.R2,), (small.R3,)]
    assert not any(small.R1 in text for text in hive.statements(str(tmp_path), "s3://b/t", "athena"))
