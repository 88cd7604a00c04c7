"""`evaluate` end to end: figures against plain arithmetic, other people's files, and input that must be refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from shared_data import DATA, needs_data
from workspace import COLUMNS, Report, Workspace

from geosieve.evaluation import inputs

FAST = {"samples": 100, "places": False, "continent": False}


class Evaluation(Workspace):
    """Evaluates lists."""

    def write(self, name: str, text: str) -> str:
        (self.root / name).write_text(text)
        return str(self.root / name)

    def evaluate(self, truth: str, *answers: str, run_id: str = "r1", **options: Any) -> Report:
        """Evaluate CSVs of id, lat, lon given as text; `truth_…` and `system_…` options go to the lists."""
        lists = [{"format": "csv", "uri": self.write(f"{k}.csv", text), "columns": COLUMNS}
                 for k, text in enumerate((truth, *answers))]  # fmt: skip
        of_truth = {k.removeprefix("truth_"): v for k, v in options.items() if k.startswith("truth_")}
        of_system = {k.removeprefix("system_"): v for k, v in options.items() if k.startswith("system_")}
        rest = {k: v for k, v in options.items() if not k.startswith(("truth_", "system_"))}
        systems = [{**one, **of_system, "name": f"s{k}"} for k, one in enumerate(lists[1:])]
        config = {**FAST, "truth": {**lists[0], **of_truth}, "systems": systems, **rest}
        return self.run("evaluate", config, run_id)

    def figures(self, run_id: str = "r1") -> pd.DataFrame:
        leaf = self.tables / "evaluations" / f"run_id={run_id}"
        return duckdb.sql(f"SELECT * EXCLUDE run_id FROM read_parquet('{leaf}/*.parquet')").df()

    def rejects(self) -> list[tuple[str, str, str]]:
        found = duckdb.sql(f"SELECT stage, error_class, id FROM read_parquet('{self.tables}/rejects/*/*/*/*.parquet')")
        return sorted(found.fetchall(), key=str)


@pytest.fixture
def workspace(tmp_path: Path, spark: SparkSession) -> Evaluation:
    return Evaluation(tmp_path)


def csv(rows: Sequence[Sequence[object]], head: str = "id,lat,lon") -> str:
    return "\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n"


TRUTH = csv([["a.jpg", 60, 10], ["b.jpg", 0, 179.999], ["c.jpg", 10, 10], ["d.jpg", -5, 5]])
ANSWERS = csv([["a.jpg", 61, 10], ["b.jpg", 0, -179.999], ["c.jpg", 10, 10], ["d.jpg", -5, 5.5]])


def recalls(figures: pd.DataFrame, protocol: str, system: str = "s0") -> list[float]:
    rows = figures[(figures["metric"] == "recall") & (figures["protocol"] == protocol) & (figures["system"] == system)]
    rows = rows[rows["stratum"].eq("all") & rows["compared_to"].isna() & rows["balanced_by"].isna()]
    return rows.sort_values("threshold_km")["value"].tolist()


def test_missing_predictions_are_misses_and_counted(workspace: Evaluation) -> None:
    """a: 111 km off; b: 222 m across the antimeridian; c: exact; d: no answer."""
    answers = "\n".join(ANSWERS.splitlines()[:-1])
    code, report = workspace.evaluate(TRUTH, answers)
    assert (code, report["rows_in"], report["rows_out"], report["rejected"]) == (0, 7, 7, {})
    assert report["details"]["missing"] == {"s0": 1}
    for protocol in ("geoestimation", "osv5m", "pigeon", "geoclip", "g3"):
        assert recalls(workspace.figures(), protocol) == [0.5, 0.5, 0.75, 0.75, 0.75]
    assert (workspace.figures()["missing"] == 1).all()
    leaf = workspace.tables / "evaluations" / "run_id=r1"
    assert "Without a prediction, which counts as a miss everywhere: s0 1" in (leaf / "_summary.md").read_text()
    assert "<svg" in (leaf / "_summary.html").read_text()
    assert workspace.evaluate(TRUTH, answers)[0] == 99


def test_a_prediction_that_cannot_be_used_is_a_reject_and_a_miss(workspace: Evaluation) -> None:
    answers = csv([["a.jpg", "61N", 10], ["b.jpg", 0, 200], ["c.jpg", "NaN", 10], ["d.jpg", 0, 0]])
    code, report = workspace.evaluate(TRUTH, answers)
    told = "3 of 4 rows are refused (lon_out_of_range 1, missing_position 1, not_a_number 1)"
    assert code == 65 and told in report["error"] and "at systems.0" in report["error"]
    _, report = workspace.evaluate(TRUTH, answers, most_refused=0.75)
    assert (report["rows_in"], report["rows_out"]) == (8, 5)
    assert workspace.rejects() == [
        ("systems.0", "lon_out_of_range", "b.jpg"), ("systems.0", "missing_position", "c.jpg"),
        ("systems.0", "not_a_number", "a.jpg"),
    ]  # fmt: skip
    assert report["details"]["missing"] == {"s0": 3}
    classes = {"lon_out_of_range": 1, "missing_position": 1, "not_a_number": 1}
    assert report["details"]["refused"] == {"s0": classes}
    summary = (workspace.tables / "evaluations" / "run_id=r1" / "_summary.md").read_text()
    assert "Without a prediction, which counts as a miss everywhere: s0 0." in summary
    told = ", ".join(f"{error} {rows}" for error, rows in classes.items())
    assert f"refused, which counts as a miss too: s0: {told}." in summary
    assert recalls(workspace.figures(), "osv5m") == [0, 0, 0, 0.0, 0.25]  # (0, 0) is an answer, 786 km off


def test_refused_predictions_are_counted_by_stratum(workspace: Evaluation) -> None:
    """a has a good row, b and d a refused one, c none."""
    images = [["a.jpg", 0, 1, "x"], ["b.jpg", 0, 2, "x"], ["c.jpg", 0, 3, "x"], ["d.jpg", 0, 4, "y"]]
    truth = csv(images, "id,lat,lon,s")
    answers = csv([["a.jpg", 0, 1], ["b.jpg", "", 2], ["d.jpg", "61N", 4]])
    code, report = workspace.evaluate(truth, answers, most_refused=0.7, truth_strata={"scene": "s"})
    assert code == 0, report["error"]
    assert (report["rows_in"], report["rows_out"], sum(report["rejected"].values())) == (7, 5, 2)
    assert report["details"]["refused"] == {"s0": {"missing_position": 1, "not_a_number": 1}}
    counts = workspace.figures().groupby("stratum_value")[["missing", "refused"]].agg(["min", "max"])
    assert counts.loc["x"].tolist() == [2, 2, 1, 1] and counts.loc["y"].tolist() == [1, 1, 1, 1]


def test_truth_that_cannot_be_used_leaves_the_image_out(workspace: Evaluation) -> None:
    truth = TRUTH.replace("60,10", "160,10")
    code, report = workspace.evaluate(truth, ANSWERS)
    assert code == 65 and "1 of 4 rows are refused (lat_out_of_range 1)" in report["error"]
    _, report = workspace.evaluate(truth, ANSWERS, most_refused=0.25)
    summary = (workspace.tables / "evaluations" / "run_id=r1" / "_summary.md").read_text()
    assert "left out of truth: lat_out_of_range 1." in summary and "left out of s0: truth_rejected 1." in summary
    assert report["rejected"] == {"truth: lat_out_of_range": 1, "systems.0: truth_rejected": 1}
    assert report["details"]["images"] == 3
    assert recalls(workspace.figures(), "geoclip") == [2 / 3, 2 / 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("truth", "answers", "told"),
    [
        (TRUTH + "a.jpg,1,1\n", ANSWERS, ["1 ids occur more than once: a.jpg", "truth"]),
        (TRUTH, ANSWERS + "c.jpg,10,10\n", ["1 ids occur more than once: c.jpg", "systems.0"]),
        (TRUTH, ANSWERS + "e.jpg,1,1\n", ["1 of 5 predictions", "'e.jpg'"]),
        (TRUTH, ANSWERS.replace(".jpg", ""), ["4 of 4 predictions", "strip_extension"]),
        (TRUTH, ANSWERS + "mean,16.5,51.3\n", ["lines 6", "exclude_ids"]),
        (TRUTH, ANSWERS + "\n,,\nAverage error: 12 km\n", ["lines 7, 8", "exclude_ids"]),
        (TRUTH, "id,lat,lon\n", ["no usable row"]),
        (TRUTH, csv([["a.jpg", 95, 1]]), ["no usable row (lat_out_of_range 1)"]),
        (TRUTH, ANSWERS.replace("lat", "latitude"), ["systems.0.columns.lat: there is no column 'lat'", "'latitude'"]),
    ],
)
def test_lists_that_are_refused_as_a_whole(workspace: Evaluation, truth: str, answers: str, told: list[str]) -> None:
    code, report = workspace.evaluate(truth, answers)
    assert code == 65
    assert all(words in report["error"] for words in told), report["error"]
    assert not list(workspace.tables.glob("evaluations/*/_SUCCESS"))


def test_a_row_without_id_among_good_ones_is_a_reject(workspace: Evaluation) -> None:
    lines = ANSWERS.splitlines()
    _, report = workspace.evaluate(TRUTH, "\n".join([*lines[:2], ",3,3", *lines[2:]]), most_refused=0.2)
    assert report["rejected"] == {"systems.0: missing_id": 1}


def test_aggregate_rows_are_left_out_when_that_is_said(workspace: Evaluation) -> None:
    code, report = workspace.evaluate(TRUTH, ANSWERS + "mean,16.5,51.3\nmedian,5,7\n", system_exclude_ids="mean|median")
    assert code == 0 and report["rejected"] == {"systems.0: excluded_by_filter": 2}
    assert recalls(workspace.figures(), "g3") == [0.5, 0.5, 1, 1, 1]


@pytest.mark.parametrize("ending", [["24.5"], ["24.5", "24.5b"], ["macro avg"], ["mean_km"], ["Total."]])
def test_averages_below_truth_and_prediction_in_one_file_are_no_image(workspace: Evaluation, ending: list[str]) -> None:
    """An average of all columns has an id like an image's, and truth and prediction in one row."""
    rng = np.random.default_rng(6)
    rows = np.round(rng.uniform(-80, 80, (50, 4)), 6)
    lines = [[k, *row] for k, row in enumerate(rows.tolist())]
    lines += [[name, *np.round(rows.mean(axis=0) if k == 0 else rows.std(axis=0), 4)] for k, name in enumerate(ending)]
    uri = workspace.write("both.csv", csv(lines, "id,lat,lon,lat_p,lon_p"))
    truth = {"format": "csv", "uri": uri, "columns": COLUMNS}
    system = {"format": "csv", "uri": uri, "name": "x", "columns": {"image_id": "id", "lat": "lat_p", "lon": "lon_p"}}
    code, report = workspace.run("evaluate", {**FAST, "truth": truth, "systems": [system]})
    assert code == 65 and "its last rows are no image's" in report["error"]
    left_out = {"exclude_ids": "|".join(name.replace(".", "[.]") for name in ending)}
    code, report = workspace.run(
        "evaluate", {**FAST, "truth": {**truth, **left_out}, "systems": [{**system, **left_out}]}
    )
    assert code == 0 and report["details"]["images"] == 50


@pytest.mark.parametrize(("place", "name"), [(0, "mean"), (25, "Grand total"), (0, "24.5")])
def test_an_aggregate_row_counts_nowhere_in_a_file(workspace: Evaluation, place: int, name: str) -> None:
    """First, or in the middle, of a file that has truth and prediction side by side, so that no row lacks its truth."""
    rng = np.random.default_rng(6)
    rows = np.round(rng.uniform(-80, 80, (50, 4)), 6)
    lines = [[k, *row] for k, row in enumerate(rows.tolist())]
    lines.insert(place, [name, *np.round(rows.mean(axis=0), 4)])
    uri = workspace.write("both.csv", csv(lines, "id,lat,lon,lat_p,lon_p"))
    truth = {"format": "csv", "uri": uri, "columns": COLUMNS}
    system = {"format": "csv", "uri": uri, "name": "x", "columns": {"image_id": "id", "lat": "lat_p", "lon": "lon_p"}}
    code, report = workspace.run("evaluate", {**FAST, "truth": truth, "systems": [system]})
    assert code == 65 and "no image" in report["error"], report["error"]
    assert (f"lines {place + 2}" in report["error"]) == (name != "24.5")


def test_names_of_aggregates_and_of_images(spark: SparkSession) -> None:
    aggregates = ["mean", "ALL", "TOTAL", "Total:", "Averages", "grand total", "sub-total", "Mean of 50 images", "std"]
    aggregates += ["mean_km", "macro avg", "25%", "standard deviation", "RMSE", "max"]
    images = [
        "mean.jpg",
        "all.PNG",
        "total_12",
        "meaning",
        "allée",
        "sum/1.jpg",
        "maxim",
        "count0",
        "17",
        "mean street",
    ]
    frame = spark.createDataFrame([(name,) for name in aggregates + images], "id string")
    found = frame.where(inputs._is_aggregate(frame["id"])).toPandas()["id"]
    assert set(found) == {*aggregates, "mean street"}  # as "mean of …": told, and kept only under another name


def test_an_encoding_is_told_by_its_first_alien_line_and_can_be_named(workspace: Evaluation) -> None:
    quoted = TRUTH.replace("c.jpg", '"c, ""Île"".jpg"')
    answers = ANSWERS.replace("c.jpg", '"c, ""Île"".jpg"')
    config = {"truth": {"format": "csv", "columns": COLUMNS}, "systems": [{"format": "csv", "name": "s0"}]}
    config["systems"][0]["columns"] = config["truth"]["columns"]
    for encoding, hint in (("latin-1", "truth.encoding: windows-1252"), ("utf-16", "encoding: UTF-16")):
        for name, text, key in (("t.csv", quoted, config["truth"]), ("p.csv", answers, config["systems"][0])):
            (workspace.root / name).write_bytes(text.encode(encoding))
            key["uri"] = str(workspace.root / name)
            key.pop("encoding", None)
        code, report = workspace.run("evaluate", {**FAST, **config})
        assert code == 65 and hint in report["error"], report["error"]
        for key in (config["truth"], config["systems"][0]):
            key["encoding"] = {"latin-1": "ISO-8859-1", "utf-16": "UTF-16"}[encoding]
        code, report = workspace.run("evaluate", {**FAST, **config}, run_id=encoding)
        assert (code, report["details"]["images"]) == (0, 4), report["error"]
        assert recalls(workspace.figures(encoding), "g3") == [0.5, 0.5, 1, 1, 1]


def test_words_for_nothing_are_no_stratum_and_no_area(workspace: Evaluation) -> None:
    """NA is Namibia's code."""
    words = ["nan", "N/A", "n/a", r"\N", '""', "-", "NULL"]
    truth = csv([[f"i{k}", 1, 1, word] for k, word in enumerate([*words, "NA", "FR"])], "id,lat,lon,country")
    answers = csv([[f"i{k}", 1, 1, word] for k, word in enumerate([*words, "NA", 2])], "id,lat,lon,km2")
    listed = {"format": "csv", "uri": workspace.write("t.csv", truth), "columns": COLUMNS}
    system = {"name": "x", "format": "csv", "uri": workspace.write("p.csv", answers)}
    code, report = workspace.run(
        "evaluate",
        {**FAST, "truth": {**listed, "strata": {"country": "country"}},
         "systems": [{**system, "columns": {**COLUMNS, "area_km2": "km2"}}]}
    )  # fmt: skip
    assert (code, report["rejected"]) == (0, {}), report["error"]
    figures = workspace.figures()
    assert set(figures[figures["stratum"] == "country"]["stratum_value"]) == {"FR", "NA", "unknown"}
    assert set(figures[figures["metric"].eq("area_recall") & figures["stratum"].eq("all")]["value"]) == {1 / 9}


def test_five_systems_are_compared_to_the_one_that_is_chosen(workspace: Evaluation) -> None:
    code, report = workspace.evaluate(TRUTH, *[ANSWERS] * 4, ANSWERS.replace("61,10", "60,10"), baseline="s2")
    assert code == 0, report["error"]
    figures = workspace.figures()
    pairs = set(figures[figures["compared_to"].notna()][["system", "compared_to"]].itertuples(index=False, name=None))
    assert pairs == {(f"s{k}", "s2") for k in (0, 1, 3, 4)}
    of_pair = figures["compared_to"].eq("s2") & figures["metric"].eq("recall") & figures["threshold_km"].eq(25)
    found = figures[of_pair & figures["protocol"].eq("g3")].set_index("system")["value"].to_dict()
    assert found == {"s0": 0, "s1": 0, "s3": 0, "s4": 0.25}
    summary = (workspace.tables / "evaluations" / "run_id=r1" / "_summary.md").read_text()
    assert "s4 − s2" in summary and "median km, answered" in summary and "| median km |" in summary


def test_a_list_whose_latitudes_are_longitudes_is_refused_as_ingest_refuses_it(workspace: Evaluation) -> None:
    rows = [[f"i{k}", lat, lon] for k, (lat, lon) in enumerate([(35, 139), (-33, 151), (48, 2), (40, -74), (37, 127)])]
    right, swapped = csv(rows), csv([[name, lon, lat] for name, lat, lon in rows])
    for lists, key in (((swapped, right), "truth"), ((right, swapped), "systems.0")):
        code, report = workspace.evaluate(*lists, most_refused=1)
        assert code == 65 and "latitude and longitude are swapped: 3 of 5 latitudes exceed 90" in report["error"]
        assert f"swap {key}.columns.lat and .lon" in report["error"]
    source = {"name": "points", "uri": workspace.write("i.csv", swapped), "format": "csv", "columns": COLUMNS}
    code, report = workspace.run("ingest_images", {"source": source})
    assert code == 65 and "latitude and longitude are swapped: 3 of 5 latitudes exceed 90" in report["error"]


def test_ids_with_and_without_extension(workspace: Evaluation) -> None:
    code, _ = workspace.evaluate(TRUTH, ANSWERS.replace(".jpg", ""), truth_strip_extension=True)
    assert code == 0 and recalls(workspace.figures(), "g3") == [0.5, 0.5, 1, 1, 1]
    code, report = workspace.evaluate(
        TRUTH + "a.png,1,1\n", ANSWERS.replace(".jpg", ""), truth_strip_extension=True, run_id="r2"
    )
    assert code == 65 and "more than once: a" in report["error"] and "strip_extension: false" in report["error"]


def test_predictions_without_truth_become_rejects_when_that_is_said(workspace: Evaluation) -> None:
    code, report = workspace.evaluate(TRUTH, ANSWERS + "e.jpg,1,1\n", unmatched="reject")
    assert code == 0 and report["rejected"] == {"systems.0: no_truth": 1}


def test_strata_of_a_list_and_areas(workspace: Evaluation) -> None:
    truth = csv([["a", 1, 1, "in"], ["b", 2, 2, "out"], ["c", 3, 3, "out"], ["d", 4, 4, ""]], "id,lat,lon,scene")
    answers = csv([["a", 1, 1, 2.5], ["b", 2, 2, "NaN"], ["c", 3, 3, ""], ["d", 4, 4, -1]], "id,lat,lon,km2")
    system = {"name": "<b>x", "format": "csv", "uri": workspace.write("p.csv", answers),
              "columns": {**COLUMNS, "area_km2": "km2"}}  # fmt: skip
    listed = {"format": "csv", "uri": workspace.write("t.csv", truth), "columns": COLUMNS, "strata": {"scene": "scene"}}
    config = {**FAST, "truth": listed, "systems": [system], "balance": "scene", "most_refused": 0.25}
    code, report = workspace.run("evaluate", config)
    assert code == 0 and report["rejected"] == {"systems.0: bad_area": 1}
    figures = workspace.figures()
    assert set(figures[figures["stratum"] == "scene"]["stratum_value"]) == {"in", "out", "unknown"}
    caps = figures[(figures["metric"] == "area_recall") & (figures["stratum"] == "all")]
    assert set(caps[caps["balanced_by"].isna()]["value"]) == {0.25}
    balanced = caps[caps["balanced_by"] == "scene"]
    assert set(balanced["value"]) == {0.5} and set(balanced["n"]) == {3}  # d has no scene
    page = (workspace.tables / "evaluations" / "run_id=r1" / "_summary.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;x" in page
    # It loads nothing: what it names lies in the page itself.
    targets = re.findall(r"""(?:href|src)="([^"]*)"|url\(([^)]*)\)""", page)
    assert all(target.startswith("#") for pair in targets for target in pair if target)


def test_images_without_a_bucket_weigh_nothing_in_balanced_figures(workspace: Evaluation) -> None:
    """Forty images in four buckets are answered exactly; one that has no bucket is 9,000 km off."""
    buckets = [[f"i{k}", 1 + k / 10, 1, k % 4] for k in range(40)]
    truth = csv([*buckets, ["lost", 80, 100, ""]], "id,lat,lon,density")
    answers = csv([*(row[:3] for row in buckets), ["lost", 0, 0]])
    code, report = workspace.evaluate(truth, answers, truth_strata={"density": "density"}, balance="density")
    assert code == 0 and report["details"]["left_out_of_balanced"] == {"density": 1}
    whole = workspace.figures()[workspace.figures()["stratum"] == "all"]
    balanced, plain = whole[whole["balanced_by"].notna()], whole[whole["balanced_by"].isna()]
    assert set(balanced[balanced["metric"] == "recall"]["value"]) == {1.0}
    assert set(plain[plain["metric"] == "recall"]["value"]) == {40 / 41}
    assert set(balanced[balanced["metric"].isin(["median_km", "mean_km"])]["high"]) == {0.0}
    assert (set(balanced["n"]), set(plain["n"])) == ({40}, {41})
    summary = (workspace.tables / "evaluations" / "run_id=r1" / "_summary.md").read_text()
    assert "1 images without a value" in summary


def test_neither_the_order_of_rows_nor_tasks_change_anything(workspace: Evaluation, spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-80, 80, 3000), rng.uniform(-180, 180, 3000)
    truth = [[f"i{k}", *place, k % 3] for k, place in enumerate(zip(lat, lon, strict=True))]
    answers = [[f"i{k}", a + e, b] for k, (a, b, e) in enumerate(zip(lat, lon, rng.exponential(2, 3000), strict=True))]
    options: dict[str, Any] = {"continent": True, "places": True, "truth_strata": {"third": "third"}}
    found = []
    for run, tasks in (("r1", "2"), ("r2", "7")):
        spark.conf.set("spark.sql.shuffle.partitions", tasks)
        spark.conf.set("spark.sql.files.maxPartitionBytes", "20000" if tasks == "7" else "128m")
        try:
            head = "id,lat,lon,third"
            code, _ = workspace.evaluate(csv(truth, head), csv(answers), run_id=run, **options)
        finally:
            spark.conf.unset("spark.sql.shuffle.partitions")
            spark.conf.unset("spark.sql.files.maxPartitionBytes")
        assert code == 0
        found.append(workspace.figures(run))
        rng.shuffle(truth)
        rng.shuffle(answers)
    pd.testing.assert_frame_equal(*found, check_exact=True)


@needs_data
def test_two_systems_beside_the_truth_in_one_published_file(workspace: Evaluation) -> None:
    path = DATA / "coords" / "osv5m_game_select.csv"
    game = pd.read_csv(path)

    def listed(**columns: str) -> dict[str, Any]:
        return {"format": "csv", "uri": str(path), "columns": {"image_id": "id", **columns}}

    systems = [{"name": name, **listed(lat=f"pred_lat{end}", lon=f"pred_lon{end}")}
               for name, end in (("osv5m", ""), ("base", "_base"))]  # fmt: skip
    truth = {**listed(lat="true_lat", lon="true_lon"), "strata": {"country": "country"}}
    code, report = workspace.run("evaluate", {"truth": truth, "systems": systems, "samples": 200})
    assert (code, report["rows_in"], report["rows_out"]) == (0, 150, 150)
    figures = report["details"]["figures"]
    for name, end in (("osv5m", ""), ("base", "_base")):
        assert figures[name]["osv5m mean_km"][0] == pytest.approx(game["distance" + end].mean(), rel=1e-14)
        assert figures[name]["osv5m geoscore"][0] == pytest.approx(game["score" + end].mean(), rel=1e-14)
        assert figures[name]["osv5m median_km"][0] == pytest.approx(game["distance" + end].median(), rel=1e-14)
        assert figures[name]["reverse_geocoder hit_country"][0] == game["country_hit" + end].mean()
        for km in (1, 25, 200, 750, 2500):
            assert figures[name][f"osv5m recall {km} km"][0] == (game["distance" + end] < km).mean()


def box(name: str, west: float, south: float) -> dict[str, Any]:
    ring = [[west + dx, south + dy] for dx, dy in ((0, 0), (2, 0), (2, 2), (0, 2), (0, 0))]
    return {
        "type": "Feature",
        "properties": {"name": name},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def test_truth_of_our_labels(workspace: Evaluation) -> None:
    source = {"name": "points", "uri": workspace.write("i.csv", TRUTH), "format": "csv", "columns": COLUMNS}
    workspace.run("ingest_images", {"source": source})
    # Two towns of one name, and one that is called as images are that lie in no region.
    towns = [box("urban", 9, 59), box("urban", 4, -6), box("outside", 9, 9)]
    uri = workspace.write("towns.geojson", json.dumps({"type": "FeatureCollection", "features": towns}))
    label = {"images": {"root": str(workspace.tables)}, "rasters": {"root": str(workspace.tables)},
             "partitions": [{"name": "face", "kind": "s2", "level": 0},
                            {"name": "town", "kind": "polygons", "uri": uri, "name_column": "name",
                             "repeated_names": "merge"}]}  # fmt: skip
    assert workspace.run("label_attributes", label)[0] == 0
    system = {"name": "x", "format": "csv", "uri": workspace.write("p.csv", ANSWERS), "columns": COLUMNS}
    # Another job's run of the same id, with a partition of the same name.
    family = [{"name": "face", "img_max": 3}, {"name": "fine", "img_max": 1}]
    build = {"images": {"root": str(workspace.tables)},
             "build": {"method": "adaptive_s2", "img_min": 0, "family": family}}  # fmt: skip
    assert workspace.run("build_partitions", build)[0] == 0
    truth = {"format": "tables", "root": str(workspace.tables), "strata": ["face", "town", "source"]}
    code, report = workspace.run("evaluate", {**FAST, "truth": truth, "systems": [system], "balance": "town"})
    assert code == 0 and report["details"]["left_out_of_balanced"] == {"town": 1}
    figures = workspace.figures()
    assert set(figures[figures["stratum"] == "face"]["stratum_value"]) == {"1", "5", "7"}  # tokens of the cube's faces
    plain = figures[figures["balanced_by"].isna() & figures["metric"].eq("mean_km") & figures["protocol"].eq("g3")]
    images = plain[plain["stratum"] == "town"].set_index("stratum_value")["n"].to_dict()
    assert images == {"urban": 2, "outside": 1, "(outside)": 1}
    balanced = figures[figures["balanced_by"].notna() & figures["stratum"].eq("all") & figures["metric"].eq("recall")]
    assert set(balanced[balanced["threshold_km"] == 1]["value"]) == {0.5}  # of urban none, of the other town all
    code, _ = workspace.run("evaluate", {**FAST, "truth": {**truth, "strata": []}, "systems": [system]}, run_id="r2")
    assert code == 0 and recalls(workspace.figures("r2"), "g3", "x") == [0.5, 0.5, 1, 1, 1]
    code, report = workspace.run(
        "evaluate", {**FAST, "truth": {**truth, "strata": ["fine"]}, "systems": [system]}, run_id="r3"
    )
    assert code == 65 and "no label of fine; it has face, town" in report["error"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"balance": "density"}, "'density' is none of the strata"),
        ({"protocols": ["osv5"]}, "protocols"),
        ({"truth_strata": {"all": "lat"}}, "all cannot stand there"),
        ({"samples": 5}, "samples"),
        ({"baseline": "s9"}, "baseline: 's9' is none of the systems s0"),
        ({"truth_exclude_ids": "*.jpg"}, "'*.jpg' is no regular expression"),
    ],
)
def test_configurations_that_cannot_be_are_told(workspace: Evaluation, options: dict[str, Any], told: str) -> None:
    code, report = workspace.evaluate(TRUTH, ANSWERS, **options)
    assert code == 78 and told in report["error"]


def test_a_stratum_of_too_many_values_is_refused(workspace: Evaluation) -> None:
    rows = [[f"i{k}", 1, 1, k] for k in range(101)]
    code, report = workspace.evaluate(
        csv(rows, "id,lat,lon,n"), csv([row[:3] for row in rows]), truth_strata={"n": "n"}
    )
    assert code == 65 and "stratum n has more than 100 values" in report["error"]
