"""`report_archive`: what its page says, against the tables and by hand."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import simplejpeg
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from small_answers import BANDS, HOSTILE, SIDES, World, data_of
from workspace import COLUMNS

from geosieve.ensemble.ranking import coarse_regions
from geosieve.reporting.shown import script_json, shown
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import AUDIT, IMAGE_SUMMARY, RANKED_REGIONS

LONG = "z" * 10_000
TRUTHS = 40
MANY = 10_000


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Ranking `photos` of photographs with hostile names; ranking `points`, whose true places are known."""
    made = World(tmp_path_factory.mktemp("page"), spark)
    made.photographs("photos", HOSTILE)
    rng = np.random.default_rng(0)
    ids = [*HOSTILE, LONG, "broken"]
    p = [rng.dirichlet(np.full(n, 0.5), len(ids)) for n in (10, 6)]
    p[0][-1] = np.nan  # refused
    made.rank("photos", "r1", "photos", ids, p, cut={"by": "mass", "at": 0.99})
    lat, lon = rng.uniform(-85, 85, TRUTHS), rng.uniform(-179, 179, TRUTHS)
    made.ingest(lat, lon, "points")
    made.truth = (lat, lon)
    points = [f"points{n:06d}" for n in range(TRUTHS)]
    p = [rng.dirichlet(np.full(n, 0.5), TRUTHS) for n in (10, 6)]
    for of, k in zip(p, ((lat + 90) // 18, (lon + 180) // 60), strict=True):
        of[np.arange(TRUTHS), k.astype(int)] += 0.1
        of /= of.sum(axis=1, keepdims=True)
    made.rank("points", "r1", "points", points, p, cut={"by": "mass", "at": 0.5})
    return made


def made(world: World, name: str, ranking: str, **change: Any) -> tuple[Any, str, dict[str, Any]]:
    """The data of a page, its text, and the job's report."""
    code, report = world.page(name, ranking, **change)
    assert code == EXIT_DONE, report["error"]
    return data_of(world.root / name), (world.root / name).read_text("utf-8"), report


def table(world: World, name: str, ranking: str) -> pd.DataFrame:
    leaf = world.tables / f"{name}/ranking={ranking}/run_id=r1"
    return pq.read_table(leaf, partitioning=None).to_pandas()


def test_a_page_says_of_every_image_what_the_tables_say(world: World) -> None:
    data, _, report = made(world, "all.html", "points")
    summaries = table(world, "image_summary", "points").set_index("image_id")
    regions = table(world, "ranked_regions", "points")
    images = data["images"]
    assert sorted(images["name"]) == sorted(summaries.index) and report["rows_out"] == TRUTHS
    for k, name in enumerate(images["name"]):
        row = summaries.loc[name]
        assert images["lat"][k] == pytest.approx(row["lat"], abs=6e-4)
        assert images["half"][k] == pytest.approx(row["area_50_km2"], rel=1e-3)
        mine = regions[regions["image_id"] == name].sort_values("rank")
        detail = data["details"][str(k)]
        assert detail["all"] == row["regions"] == len(mine) and [one[0] for one in detail["regions"]] == list(
            mine["rank"]
        )
        assert [one[1] for one in detail["regions"]] == pytest.approx(list(mine["probability"]), rel=1e-3)
        assert [one[7:] for one in detail["regions"]] == mine[["south", "west", "north", "east"]].to_numpy().tolist()
    places = np.floor(summaries[["lat", "lon"]].to_numpy())
    assert sum(n for n, _, _ in data["cells"]) == TRUTHS and len(data["cells"]) == len(np.unique(places, axis=0))


def test_hostile_names_are_data_and_never_markup(world: World) -> None:
    data, text, _ = made(world, "hostile.html", "photos")
    assert sorted(data["images"]["name"]) == sorted(shown(name) for name in [*HOSTILE, LONG])
    elements: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            elements.append((tag, dict(attributes)))

    Reader().feed(text)
    assert [dict(a).get("id") for tag, a in elements if tag == "script"] == ["data", None]
    assert not [tag for tag, _ in elements if tag in ("img", "iframe", "link", "object", "a") and "href" not in _]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert not [a for _, a in elements if not str(a.get("href", "#")).startswith("#") or "src" in a]
    assert LONG not in text and "\u202e" not in text and "\u2028" not in text


def test_names_are_shown_whole_or_with_their_ends() -> None:
    assert shown("plain.jpg") == "plain.jpg"
    assert shown("a\u202eb\n\x00") == "a⟨U+202E⟩b⟨U+000A⟩⟨U+0000⟩"
    assert shown("\u05e9\u200cx") == "\u05e9\u200cx"  # letters of any script, and what joins them, are no disguise
    assert shown("a" * 120 + "b" * 100 + "c" * 40) == "a" * 120 + "…" + "c" * 40 + " (260 characters)"
    assert script_json({"a": "</script><!--&\u2028"}) == '{"a":"\\u003c/script\\u003e\\u003c!--\\u0026\\u2028"}'
    with pytest.raises(ValueError):
        script_json(float("nan"))


def test_a_page_asks_for_nothing_from_anywhere(world: World) -> None:
    _, text, _ = made(world, "alone.html", "photos")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    assert not re.findall(r"https?://", text)


def test_figures_of_an_evaluation_are_told(world: World) -> None:
    listed = {"format": "csv", "uri": str(world.root / "points.csv"), "columns": COLUMNS}
    config = {"truth": listed, "systems": [{"name": "itself", **listed}], "places": False, "continent": False}
    world.done(world.run("evaluate", config, "e1"))
    _, text, _ = made(world, "evaluated.html", "points", evaluation="latest")
    rows = re.findall(r"<td>osv5m</td><td>recall</td><td[^>]*>25</td><td[^>]*>([^<]*)<", text)
    assert rows == ["1"]


def test_refusals_times_and_the_missing_audit_are_told(world: World) -> None:
    _, text, _ = made(world, "work.html", "photos", price_per_hour=3.6, currency="EUR")
    assert "not_probabilities" in text and "photos/broken" in text
    assert "EUR" in text and "images per second" in text
    assert "There is no audit record" in text and "No truth is known" in text
    assert "What you must not conclude" in text


def test_thumbnails_are_pictures_without_exif_and_only_if_asked(world: World) -> None:
    data, text, report = made(world, "plain.html", "photos")
    assert "jpeg" not in str(data["details"]) and "no pictures: none were asked for" in text
    data, text, report = made(world, "pictures.html", "photos", thumbnails={"side": 24}, detailed=9)
    assert report["details"]["thumbnails"] == len(HOSTILE)
    for k, name in enumerate(data["images"]["name"]):
        detail = data["details"][str(k)]
        assert ("jpeg" in detail) == (name != shown(LONG))
        if "jpeg" in detail:
            jpeg = base64.b64decode(detail["jpeg"])
            picture = Image.open(io.BytesIO(jpeg))
            assert picture.size == (32, 24) and not picture.getexif()
            colour = (40 * [shown(one) for one in HOSTILE].index(name) % 256, 90, 200)
            # Names that follow each other differ by 40 levels of red.
            assert np.abs(simplejpeg.decode_jpeg(jpeg).mean(axis=(0, 1)) - colour).max() < 20


def test_truth_is_compared_with_what_is_known_and_no_more(world: World) -> None:
    overlay = {"root": str(world.tables), "name": "world"}
    data, text, report = made(world, "truth.html", "points", truth={"overlay": overlay})
    regions = table(world, "ranked_regions", "points")
    lat, lon = world.truth
    reached, told = np.full(TRUTHS, np.inf), np.empty(TRUTHS)
    for k in range(TRUTHS):
        mine = regions[regions["image_id"] == f"points{k:06d}"].sort_values("rank")
        box = BANDS[f"band{int((lat[k] + 90) // 18)}"], SIDES[f"side{int((lon[k] + 180) // 60)}"]
        hit = mine[(mine["south"] == box[0][1]) & (mine["west"] == box[1][0])]
        told[k] = mine["cumulative_area_km2"].max()
        if len(hit):
            (reached[k],) = hit["cumulative_area_km2"]
    censored = int(np.isinf(reached).sum())
    assert 0 < censored < TRUTHS and report["details"]["truths"] == TRUTHS
    assert f"Of {censored} images" in text
    rows = dict(re.findall(r'<tr><th scope="row" class="number">([\d,]+)</th>(.*?)</tr>', text))
    for area, cells in rows.items():
        low, high = (float(one) / 100 for one in re.findall(r">([\d.]+)%<", cells))
        km2 = float(area.replace(",", ""))
        assert low == pytest.approx((reached <= km2 * 1.0001).mean(), abs=6e-4)
        assert high == pytest.approx(((reached <= km2 * 1.0001) | (np.isinf(reached) & (told < km2))).mean(), abs=6e-4)
    assert len(rows) == 4
    truths = {data["images"]["name"][int(k)]: one["truth"] for k, one in data["details"].items()}
    assert truths["points000000"] == pytest.approx([lat[0], lon[0]], abs=1e-4)


def test_truth_of_joined_regions_and_over_the_wrong_overlay(world: World) -> None:
    rng = np.random.default_rng(1)
    points = [f"points{n:06d}" for n in range(TRUTHS)]
    p = [rng.dirichlet(np.full(n, 0.5), TRUTHS) for n in (10, 6)]
    world.rank("coarse", "r1", "points", points, p, least_km2=20e6, cut={"by": "mass", "at": 0.5})
    overlay = {"root": str(world.tables), "name": "world"}
    _, text, _ = made(world, "coarse.html", "coarse", truth={"overlay": overlay})
    region = coarse_regions(world.overlay, 20e6)
    lat, lon = world.truth
    atoms = [row.tolist() for row in world.overlay.labels]
    true = [region[atoms.index([int((y + 90) // 18), int((x + 180) // 60)])] for y, x in zip(lat, lon, strict=True)]
    told = table(world, "ranked_regions", "coarse").groupby("image_id")["atom"].agg(set)
    censored = sum(one not in told[name] for one, name in zip(true, points, strict=True))
    assert 0 < censored < TRUTHS and f"Of {censored} images" in text
    world.rank("coarse", "r2", "points", points[:3], [of[:3] for of in p], least_km2=30e6)
    code, report = world.page("two.html", "coarse", truth={"overlay": overlay})
    assert code == EXIT_BAD_INPUT and "different least areas: 2e+07, 3e+07" in report["error"]


def test_each_image_counts_by_its_latest_run(world: World) -> None:
    rng = np.random.default_rng(2)
    first, second = (([rng.dirichlet(np.ones(n), 4) for n in (10, 6)]) for _ in range(2))
    world.rank("twice", "one", "s", ["a", "b", "c", "d"], first)
    world.rank("twice", "two", "s", ["c", "d", "e", "f"], second)
    data, _, _ = made(world, "twice.html", "twice")
    assert sorted(data["images"]["name"]) == list("abcdef")
    for run, names in (("one", "ab"), ("two", "cdef")):
        leaf = world.tables / f"ranked_regions/ranking=twice/run_id={run}"
        rows = pq.read_table(leaf, partitioning=None).to_pandas()
        for name in names:
            mine = rows[rows["image_id"] == name].sort_values("rank")
            detail = data["details"][str(data["images"]["name"].index(name))]
            assert [one[1] for one in detail["regions"]] == pytest.approx(list(mine["probability"])[:50], rel=1e-3)
    data, _, _ = made(world, "latest.html", "twice", answers={"run": "latest"})
    assert sorted(data["images"]["name"]) == list("cdef")
    data, _, _ = made(world, "one.html", "twice", answers={"run": "one"})
    assert sorted(data["images"]["name"]) == list("abcd")


def test_copies_have_the_answers_of_others_and_an_audit_is_told(world: World, spark: SparkSession) -> None:
    rng = np.random.default_rng(4)
    world.rank("scan", "first", "s", ["a", "b"], [rng.dirichlet(np.ones(n), 2) for n in (10, 6)])
    first = world.tables / "image_summary/ranking=scan/run_id=first"
    copy = spark.read.parquet(str(first)).where("image_id = 'b'").drop("ranking", "run_id")
    copy = copy.withColumns({"source": F.lit("t"), "image_id": F.lit("copy of b")})
    names = ("<i>me</i>", "host", "t", "s3a://key:s3cr3t@bucket/x", "set", "hash", "base", "u", "5e")
    facts = (
        "timestamp('2026-11-26') started_at, '{}' user, '{}' host, '{}' source, '{}' uri, '{}' model_set, "
        "'{}' overlay_hash, array(struct('{}' AS member, '{}' AS predictor, '{}' AS sha256)) predictors, "
        "bigint(1) images, bigint(0) computed, bigint(0) rejected, double(null) least_km2, false claims_tested, "
        "false positions_kept"
    )
    leaves = [Leaf(table, {"ranking": "scan"}) for table in (AUDIT, RANKED_REGIONS, IMAGE_SUMMARY)]
    publication = Publication(spark, str(world.tables), "second", "{}", "0" * 64, leaves)
    publication.begin()
    publication.write(AUDIT, spark.sql(f"SELECT {facts.format(*names)}"))
    publication.write(RANKED_REGIONS, spark.createDataFrame([], RANKED_REGIONS.spark_schema()))
    publication.write(IMAGE_SUMMARY, copy.select([column.name for column in IMAGE_SUMMARY.columns]))
    report = {"job": "geolocate_archive", "run_id": "second", "rows_in": 1, "seconds": {"x": 4}}
    publication.commit(1, json.dumps(report))
    leaf = world.tables / "ranked_regions/ranking=scan/run_id=first"
    regions = pq.read_table(leaf, partitioning=None).to_pandas()
    mine = regions[regions["image_id"] == "b"].sort_values("rank")
    for run, images in (("all", ["a", "b", "copy of b"]), ("second", ["copy of b"])):
        data, text, _ = made(world, f"{run}.html", "scan", answers={"run": run})
        assert sorted(data["images"]["name"]) == images
        k = data["images"]["name"].index("copy of b")
        assert data["images"]["copy"] == {str(k): "b"}
        assert [one[0] for one in data["details"][str(k)]["regions"]] == mine["rank"].tolist()
        assert data["details"][str(k)]["regions"][0][1] == pytest.approx(mine["probability"].iloc[0], rel=1e-3)
        assert "&lt;i&gt;me&lt;/i&gt;" in text and "s3cr3t" not in text and "There is no audit" not in text


def test_what_is_not_there_is_named(world: World) -> None:
    code, report = world.page("no.html", "photo")
    assert code == EXIT_BAD_INPUT and "did you mean 'photos'" in report["error"]
    code, report = world.page("no.html", "photos", answers={"run": "r2"})
    assert code == EXIT_BAD_INPUT and "no committed run 'r2'" in report["error"]
    (world.root / "folder.html").mkdir()
    code, report = world.page("folder.html", "photos")
    assert code == EXIT_BAD_CONFIG and "a folder of this name" in report["error"]
    code, report = world.page("no.htm", "photos")
    assert code == EXIT_BAD_CONFIG
    assert not (world.root / "no.html").exists()


def test_a_dry_run_writes_nothing(world: World) -> None:
    before = sorted(world.root.rglob("*"))
    code, report = world.page("dry.html", "photos", "--dry-run")
    assert code == EXIT_DONE and report["status"] == "dry_run"
    assert set(world.root.rglob("*")) - set(before) == {world.root / "dry.html.json"}


def test_ten_thousand_images_fit_into_five_megabytes(world: World) -> None:
    rng = np.random.default_rng(3)
    ids = [f"archive/2026/{k:03d}/IMG_20260101_{k:06d}.jpg" for k in range(MANY)]
    p = [rng.dirichlet(np.full(n, 0.5), MANY) for n in (10, 6)]
    world.rank("many", "r1", "archive", ids, p, cut={"by": "mass", "at": 0.99})
    data, text, report = made(world, "many.html", "many")
    assert len(data["images"]["name"]) == MANY and len(data["details"]) == 300
    assert report["details"]["bytes"] == len(text.encode()) < 5e6
    data, text, _ = made(world, "some.html", "many", images=100, detailed=20)
    assert len(data["images"]["name"]) == 100 and len(data["details"]) == 20
    assert "a sample of 100 of 10,000 images" in text and sum(n for n, _, _ in data["cells"]) == MANY
