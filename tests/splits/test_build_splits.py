"""`build_splits` end to end on synthetic images, against brute-force loops over all pairs of images."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyproj import Geod
from splitting import CLASSES, Splitting, Tables

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO

SPHERE = Geod(a=6371008.8, b=6371008.8)
THREE = [{"name": "test", "share": 0.1}, {"name": "validation", "share": 0.15}, {"name": "train", "share": 0.7}]


def cover_of(lon: np.ndarray) -> np.ndarray:
    found = np.full(lon.size, "(outside)", dtype=object)
    for name, (west, east) in CLASSES.items():
        found[(lon >= west) & (lon < east)] = name
    return found


@pytest.fixture(scope="module")
def facts(pool: pd.DataFrame, bench: pd.DataFrame) -> pd.DataFrame:
    """What is known of every image, in the order of the table `splits`."""
    both = pd.concat([bench.assign(source="bench"), pool.assign(source="pool")], ignore_index=True)
    return both.assign(cover=cover_of(both["lon"].to_numpy())).sort_values(["source", "image_id"], ignore_index=True)


def linked(facts: pd.DataFrame) -> list[list[int]]:
    """Rows by group, by walking from image to image over shared authors and sequences."""
    holders: dict[str, list[int]] = {}
    for row, (author, sequence) in enumerate(zip(facts["author"], facts["sequence"], strict=True)):
        for key in (f"author {author}", f"sequence {sequence}"):
            if not key.endswith(" "):
                holders.setdefault(key, []).append(row)
    keys_of: dict[int, list[str]] = {}
    for key, rows in holders.items():
        for row in rows:
            keys_of.setdefault(row, []).append(key)
    groups, seen = [], set()
    for start in keys_of:
        if start in seen:
            continue
        group, todo = {start}, [start]
        while todo:
            reached = {row for key in keys_of[todo.pop()] for row in holders[key]} - group
            group |= reached
            todo += reached
        seen |= group
        groups.append(sorted(group))
    return groups


def distances_km(facts: pd.DataFrame, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Great-circle distances of all pairs, shape (first, second)."""
    i, j = np.meshgrid(np.nonzero(first)[0], np.nonzero(second)[0], indexing="ij")
    lat, lon = facts["lat"].to_numpy(), facts["lon"].to_numpy()
    return np.asarray(SPHERE.inv(lon[i], lat[i], lon[j], lat[j])[2]) / 1000


def test_groups_are_drawn_whole_and_shares_are_near(split: Splitting, facts: pd.DataFrame) -> None:
    code, report = split(THREE, run_id="groups")
    assert code == EXIT_DONE, report["error"]
    rows = split.rows("groups")
    assert report["rows_in"] == report["rows_out"] == len(facts) == len(rows)
    assert rows[["source", "image_id"]].equals(facts[["source", "image_id"]])
    groups = linked(facts)
    assert len(groups) > 100 and any(len({facts["author"][row] for row in group} - {""}) > 1 for group in groups)
    for group in groups:
        assert rows["split"][group].nunique() == 1
    assert set(rows["reason"].dropna()) == {"not_drawn"}
    # 150 groups of unlike size and 300 single images: the shares hold within chance
    for name, share in (("test", 0.1), ("validation", 0.15), ("train", 0.7), ("left_out", 0.05)):
        assert abs((rows["split"] == name).mean() - share) < 0.1, name


def test_single_images_are_drawn_in_the_shares(split: Splitting, facts: pd.DataFrame) -> None:
    split(THREE, run_id="images", draw="image", groups=[])
    drawn = split.rows("images")["split"]
    share = drawn.value_counts() / len(facts)
    for name, expected in (("test", 0.1), ("validation", 0.15), ("train", 0.7), ("left_out", 0.05)):
        assert abs(share[name] - expected) < 4 * (expected * (1 - expected) / len(facts)) ** 0.5
    # another seed draws independently: as many agree as chance makes agree
    split(THREE, run_id="seed", draw="image", groups=[], seed=8)
    agree = (drawn == split.rows("seed")["split"]).mean()
    assert abs(agree - (0.1**2 + 0.15**2 + 0.7**2 + 0.05**2)) < 0.04


@pytest.mark.parametrize("km", [5, 120])
def test_no_training_image_is_near_an_evaluation_image(split: Splitting, facts: pd.DataFrame, km: float) -> None:
    splits = [THREE[0], {**THREE[1], "apart_km": km}, {**THREE[2], "apart_km": km}]
    code, report = split(splits, run_id=f"apart{km}", draw="image", groups=[])
    assert code == EXIT_DONE, report["error"]
    rows = split.rows(f"apart{km}")
    before = np.zeros(len(rows), dtype=bool)
    for name in ("test", "validation", "train"):
        drawn = (rows["drawn"] == name).to_numpy()
        if before.any():
            nearest = distances_km(facts, drawn, before).min(axis=1)
            near = (rows["reason"] == "too_near").to_numpy()[drawn]
            np.testing.assert_array_equal(near, nearest <= km)
            assert near.any() and not near.all()
            np.testing.assert_allclose(rows["distance_km"][drawn][near], nearest[near], rtol=1e-9, atol=1e-8)
        before |= (rows["split"] == name).to_numpy()


def test_no_two_images_of_a_spaced_split_are_near(split: Splitting, facts: pd.DataFrame) -> None:
    km = 3.0
    split([{"name": "test", "share": 1.0, "spacing_km": km}], run_id="spaced")
    rows = split.rows("spaced")
    kept = (rows["split"] == "test").to_numpy()
    between = distances_km(facts, kept, kept)
    np.fill_diagonal(between, np.inf)
    assert between.min() > km
    # what went had another image of the split near it
    gone = (rows["reason"] == "too_dense").to_numpy()
    assert gone.sum() > 500
    assert (np.sort(distances_km(facts, gone, np.ones(len(facts), bool)), axis=1)[:, 1] <= km).all()
    lonely = distances_km(facts, np.ones(len(facts), bool), np.ones(len(facts), bool))
    np.fill_diagonal(lonely, np.inf)
    assert kept[lonely.min(axis=1) > km].all()


def test_a_gallery_has_no_author_of_the_tests(split: Splitting, facts: pd.DataFrame) -> None:
    splits = [{"name": "test", "sources": ["bench"]}, {"name": "gallery", "share": 1.0, "known_group": True}]
    code, report = split(splits, run_id="gallery", groups=["author"])
    assert code == EXIT_DONE, report["error"]
    rows = split.rows("gallery")
    tested = set(facts["author"][rows["split"] == "test"]) - {""}
    assert (rows["split"] == "test").equals(facts["source"] == "bench")
    gallery, pool = rows["split"] == "gallery", facts["source"] == "pool"
    assert (rows["reason"] == "no_group").equals(pool & (facts["author"] == ""))
    assert (rows["reason"] == "same_group").equals(pool & facts["author"].isin(tested))
    assert gallery.any() and not set(facts["author"][gallery]) & tested
    alone = int((facts["author"][facts["source"] == "bench"] == "").sum())
    assert any(f"{alone} images drawn for test have no author" in warning for warning in report["warnings"])


def test_an_eighth_at_most_is_urban_and_no_image_too_few(split: Splitting, facts: pd.DataFrame) -> None:
    cap = {"partition": "cover", "shares": {"urban": 0.125}}
    code, report = split([THREE[0], {**THREE[2], "cap": cap}], run_id="cap", draw="image", groups=[])
    assert code == EXIT_DONE, report["error"]
    rows = split.rows("cap")
    drawn, urban = rows["drawn"] == "train", facts["cover"] == "urban"
    kept = rows["split"] == "train"
    others = int((drawn & ~urban).sum())
    assert int((kept & ~urban).sum()) == others
    assert int((kept & urban).sum()) == others // 7  # k / (k + others) <= 1/8
    assert (rows["reason"] == "over_cap").equals(drawn & urban & ~kept)


@pytest.mark.parametrize("images", [None, 5])
def test_every_bucket_has_the_same_number(split: Splitting, facts: pd.DataFrame, images: int | None) -> None:
    names = ["water", "urban", "crops", "trees"]
    balance = {"partition": "cover", "regions": names, **({"images": images} if images else {})}
    code, report = split([{"name": "test", "share": 1.0, "balance": balance}], run_id=f"balance{images}")
    assert code == EXIT_DONE, report["error"]
    rows = split.rows(f"balance{images}")
    smallest = min(int((facts["cover"] == name).sum()) for name in names)
    found = facts["cover"][rows["split"] == "test"].value_counts()
    assert found.to_dict() == dict.fromkeys(names, images or smallest)
    assert (rows["reason"] == "no_class").equals(~facts["cover"].isin(names))


@pytest.mark.parametrize("kind", ["polygons", "maps"])
def test_regions_of_one_name_are_one_class(split: Splitting, facts: pd.DataFrame, tmp_path: Any, kind: str) -> None:
    """The west of the Earth is two polygons of one name, merged to a region of two parts; or two regions, of two files.

    One of the two regions reaches into both files, the other has images in one.
    """
    named = [("urban", (-180, -60)), ("urban", (-60, 40)), ("crops", (40, 90)), ("trees", (90, 121))]
    cover = facts["cover"].replace({"water": "urban", "ice": "trees"})
    labelled = Tables(tmp_path)
    label = labelled.label_by_boxes if kind == "polygons" else labelled.label_from_maps
    report = label(classes=named, root=str(split.tables.tables))
    numbers = pq.read_table(labelled.tables / "labels", columns=["cover"])["cover"].to_pylist()
    assert {number for number in numbers if number >= 0} == set(range(3 if kind == "polygons" else 4))
    counted = cover[cover != "(outside)"].value_counts().to_dict()
    assert report["details"]["partitions"]["cover"]["regions"] == counted
    splits = [
        {"name": "test", "share": 0.4, "balance": {"partition": "cover"}},
        {"name": "train", "share": 0.6, "cap": {"partition": "cover", "shares": {"urban": 0.125}}},
    ]
    code, report = split(splits, run_id=f"names-{kind}", draw="image", groups=[], labels={"root": str(labelled.tables)})
    assert code == EXIT_DONE, report["error"]
    rows = split.rows(f"names-{kind}")
    drawn, kept = rows["drawn"] == "test", rows["split"] == "test"
    smallest = cover[drawn & (cover != "(outside)")].value_counts().min()
    assert cover[kept].value_counts().to_dict() == dict.fromkeys(["urban", "crops", "trees"], smallest)
    drawn, kept = rows["drawn"] == "train", rows["split"] == "train"
    others = int((drawn & (cover != "urban")).sum())
    assert int((kept & (cover != "urban")).sum()) == others
    assert int((kept & (cover == "urban")).sum()) == others // 7  # k / (k + others) <= 1/8


def test_the_receipt_counts_what_the_splits_say(split: Splitting, facts: pd.DataFrame) -> None:
    cap = {"partition": "cover", "shares": {"urban": 0.1, "crops": 0.2}}
    splits = [{**THREE[0], "spacing_km": 0.5}, {**THREE[2], "apart_km": 300, "cap": cap}]
    code, report = split(splits, run_id="receipt", draw={"s2_level": 4})
    assert code == EXIT_DONE, report["error"]
    rows, receipt = split.rows("receipt"), split.rows("receipt", "split_receipt")
    outcome = rows["reason"].fillna("kept")
    total = receipt[receipt["partition"].isna()]
    counted = rows.fillna({"drawn": "none"}).groupby(["drawn", outcome]).size().to_dict()
    assert total.fillna({"drawn": "none"}).set_index(["drawn", "outcome"])["images"].to_dict() == counted
    assert {outcome for _, outcome in counted} >= {"kept", "same_group", "too_near", "too_dense", "over_cap"}
    assert report["details"]["splits"] == {
        drawn: {o: n for (d, o), n in counted.items() if d == drawn} for drawn in ("none", "test", "train")
    }
    classes = receipt[receipt["partition"] == "cover"].groupby(["outcome", "region_name"])["images"].sum().to_dict()
    assert classes == rows.groupby([outcome, facts["cover"]]).size().to_dict()
    assert receipt["near_duplicates"].isna().all()  # not among the groups
    query = f"SELECT count(*) FROM '{split.tables.tables}/splits/*/run_id=receipt/*.parquet' WHERE split = 'train'"
    assert duckdb.sql(query).fetchall() == [(counted["train", "kept"],)]


def test_neither_order_nor_tasks_decide(
    split: Splitting, pool: pd.DataFrame, tmp_path: Any, spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap = {"partition": "cover", "shares": {"urban": 0.2}}
    balance = {"partition": "cover", "regions": ["water", "urban", "crops"]}
    splits = [{**THREE[0], "spacing_km": 1, "balance": balance}, {**THREE[2], "apart_km": 20, "cap": cap}]
    other = Tables(tmp_path)
    other.ingest_images(pool.sample(frac=1, random_state=0), "pool", files=3)
    other.label_by_boxes()
    shuffled = Splitting(other)
    found = []
    for number, (splitting, tasks) in enumerate([(split, 4), (shuffled, 9)]):
        monkeypatch.setattr("geosieve.splits.build.tasks_for", lambda *_, tasks=tasks: tasks)
        spark.conf.set("spark.sql.shuffle.partitions", tasks)
        images = {"root": str(splitting.tables.tables), "sources": ["pool"]}
        code, report = splitting(splits, run_id=f"order{number}", images=images, draw={"s2_level": 5})
        assert code == EXIT_DONE, report["error"]
        found.append(splitting.rows(f"order{number}"))
    spark.conf.unset("spark.sql.shuffle.partitions")
    pd.testing.assert_frame_equal(found[0], found[1])


def test_images_stay_in_their_split_when_the_list_grows(split: Splitting) -> None:
    images = {"root": str(split.tables.tables), "sources": ["pool"]}
    split(THREE, run_id="few", images=images, groups=["sequence"])
    split(THREE, run_id="more", groups=["sequence"])  # `bench` has no sequences
    few, more = split.rows("few"), split.rows("more")
    pd.testing.assert_frame_equal(few, more[more["source"] == "pool"].reset_index(drop=True))


def test_a_rerun_finds_nothing_to_do_and_a_dry_run_writes_nothing(split: Splitting) -> None:
    code, report = split(THREE, "--dry-run", run_id="dry")
    assert (code, report["status"]) == (EXIT_DONE, "dry_run")
    assert not (split.tables.tables / "splits/split_set=test/run_id=dry").exists()
    split(THREE, run_id="again")
    assert split(THREE, run_id="again")[0] == EXIT_NOTHING_TO_DO


@pytest.mark.parametrize(
    ("splits", "config", "code", "said"),
    [
        ([{"name": "a", "share": 0.6}, {"name": "b", "share": 0.5}], {}, EXIT_BAD_CONFIG, "sum to 1.1"),
        ([{"name": "a", "share": 1.2}], {}, EXIT_BAD_CONFIG, "less than or equal to 1"),
        ([{"name": "a"}], {}, EXIT_BAD_CONFIG, "either sources or a share"),
        ([{"name": "none", "share": 1}], {}, EXIT_BAD_CONFIG, "this name stands for the images that are in no split"),
        ([{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}], {}, EXIT_BAD_CONFIG, "stands twice"),
        ([{"name": "a", "share": 1, "apart_km": 30_000}], {}, EXIT_BAD_CONFIG, "apart_km"),
        ([{"name": "a", "share": 1}], {"groups": ["camera"]}, EXIT_BAD_CONFIG, "'author', 'sequence'"),
        ([{"name": "a", "share": 1}], {"groups": []}, EXIT_BAD_CONFIG, "name at least one"),
        ([{"name": "a", "sources": ["flickr"]}], {}, EXIT_BAD_INPUT, "no images of source flickr; there are bench"),
        (
            [{"name": "a", "share": 1, "cap": {"partition": "coverr", "shares": {"urban": 0.1}}}],
            {},
            EXIT_BAD_INPUT,
            "no label of coverr; it has cover",
        ),
        (
            [{"name": "a", "share": 1, "cap": {"partition": "cover", "shares": {"urbn": 0.1}}}],
            {},
            EXIT_BAD_CONFIG,
            "did you mean 'urban'",
        ),
        (
            [{"name": "a", "share": 1, "cap": {"partition": "cover", "shares": {"urban": 0.1}}}],
            {"labels": None},
            EXIT_BAD_CONFIG,
            "labels: needed",
        ),
        (
            [{"name": "a", "share": 1, "balance": {"partition": "cover", "images": 100_000}}],
            {},
            EXIT_BAD_INPUT,
            "100000 images are asked of every region, but 'ice' has",
        ),
        (
            [{"name": "a", "share": 0.0001, "balance": {"partition": "cover"}}],
            {"draw": "image"},
            EXIT_BAD_INPUT,
            "nothing to balance | at split a",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(
    split: Splitting, splits: list[dict[str, Any]], config: dict[str, Any], code: int, said: str
) -> None:
    found, report = split(splits, run_id="refused", **config)
    assert (found, said in report["error"]) == (code, True), report["error"]
    assert not list((split.tables.tables / "splits").glob("*/run_id=refused/_SUCCESS"))


def test_of_ids_in_several_runs_the_latest_row_is_split(split: Splitting, pool: pd.DataFrame, tmp_path: Any) -> None:
    tables = Tables(tmp_path)
    tables.ingest_images(pool.head(30), "pool", run_id="r1")
    tables.ingest_images(pool.head(31).tail(11), "pool", run_id="r2")
    images = {"root": str(tables.tables), "run": "all"}
    code, report = Splitting(tables)(THREE, run_id="twice", images=images, labels=None)
    # Rows 0..29 and 20..30: ten ids stand in both.
    assert (code, report["rows_in"], report["rows_out"]) == (EXIT_DONE, 31, 31), report["error"]
    assert report["details"]["older_rows_left_out"] == 10
