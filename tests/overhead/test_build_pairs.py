"""`build_pairs` as it is run: which photos become pairs, what is refused, what a pair holds. Photos are SYNTHETIC."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from committed import commit, image
from fabricated_pairs import STRIP, Pairs, chip, jpeg, picture
from PIL import Image, ImageOps
from pyspark.sql import SparkSession

from geosieve.images.decode import decode
from geosieve.images.isolation import isolated
from geosieve.images.perceptual_hash import SIDE, perceptual_hash
from geosieve.overhead.pairs.choice import wildcard
from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO
from geosieve.tables.schemas import IMAGES

CONF = Path(__file__).parents[2] / "conf"
SIZES = {"wide": (900, 600), "tall": (400, 1001), "turned": (800, 500), "small": (120, 80), "other": (640, 480)}
HERE = (36.2, -115.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Pairs:
    """Photos and chips, with something wrong with most: the id says what."""
    made = Pairs(tmp_path_factory.mktemp("pairs"))
    ids = [*SIZES, "copyright", "unlicensed", "chipless", "moved", "changed", "gone", *(f"fan{k}" for k in range(5))]
    rows = pd.DataFrame({"image_id": ids, "lat": HERE[0], "lon": HERE[1]})
    rows["lat"] += np.arange(len(ids)) * 0.01  # 1.1 km: places of their own
    rows.loc[rows["image_id"].str.startswith("fan"), "lat"] = 36.0
    rows["author"] = ["fan" if name.startswith("fan") else f"author {name}" for name in ids]
    rows["licence"] = [{"copyright": "all-rights-reserved", "unlicensed": None}.get(name, "cc-by-2.0") for name in ids]
    rows["captured_at"] = "2014-05-06T07:08:09Z"
    files = {name: jpeg(picture(k, *SIZES.get(name, (60, 40)))) for k, name in enumerate(ids)}
    files["turned"] = jpeg(picture(2, *SIZES["turned"]), orientation=6)
    made.photos("photos", rows, files)
    (made.root / "photos/changed.jpg").write_bytes(jpeg(picture(99, 60, 40)))
    (made.root / "photos/gone.jpg").unlink()
    at = rows.set_index("image_id")
    chips = [chip(name, at.lat[name], at.lon[name]) for name in ids if name != "chipless"]
    for row in chips:
        if row["image_id"] == "moved":
            row["lat"] += 1e-6  # 11 cm
        if row["image_id"] == "other":
            row |= {"raster_uri": "s3://maps/ortho.tif", "raster_source": "ortho", "strip_id": None}
    chips += [chip("nobody", 1.0, 2.0)]
    chips += [chip("wide", at.lat["wide"], at.lon["wide"], view="far", resolution_m=1.2)]
    made.chips("city", chips, rejects=[("chipless", "empty"), ("nobody too", "no_raster")])
    return made


@pytest.fixture(scope="module")
def report(world: Pairs) -> dict[str, Any]:
    areas = [{"name": "Vegas", "pattern": "*AOI_?_Vegas*"}]
    crowd = {"photos": 3}
    code, report = world.pair("city", licences=["cc-by-2.0", "cc0-1.0"], areas=areas, crowd=crowd)
    assert code == EXIT_DONE, report["error"]
    return report


def test_every_image_is_a_pair_or_a_reject_with_its_reason(world: Pairs, report: dict[str, Any]) -> None:
    rejects, pairs = world.rejects("city"), world.pairs("city")
    fans = [name for name in pairs["image_id"] if name.startswith("fan")]
    assert sorted(set(pairs["image_id"]) - set(fans)) == sorted(SIZES)
    assert len(fans) == 3
    assert rejects == {
        **{"copyright": "licence_not_allowed", "unlicensed": "licence_not_allowed", "chipless": "no_chip"},
        **{"moved": "moved", "changed": "changed_content", "gone": "missing_file"},
        **{f"fan{k}": "too_many_of_author" for k in range(5) if f"fan{k}" not in fans},
    }
    assert report["rows_in"] == 16 == len(pairs) + len(rejects) == report["rows_out"] + sum(report["rejected"].values())
    assert report["details"]["chips_without_photo"] == 1  # nobody
    assert report["details"]["areas"] == {"Vegas": 7, "ortho": 1}
    assert any("2 images are gone or have changed" in warning for warning in report["warnings"])


def test_photos_are_upright_copies_of_bounded_size_without_metadata(world: Pairs, report: dict[str, Any]) -> None:
    sizes = {"wide": (500, 333), "tall": (200, 500), "turned": (312, 500), "small": (120, 80), "other": (500, 375)}
    for row in world.pairs("city").itertuples():
        if row.image_id not in SIZES:
            continue
        found = Image.open(io.BytesIO(row.photo))
        assert (found.format, found.mode, found.size) == ("JPEG", "RGB", sizes[row.image_id])
        assert (row.photo_width, row.photo_height) == found.size
        assert not found.getexif()
        assert b"a name that must not travel" not in row.photo
        original = ImageOps.exif_transpose(Image.open(world.root / "photos" / f"{row.image_id}.jpg"))
        expected = original.resize(found.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 3  # of 255 levels


def test_a_pair_has_the_chip_of_its_photo_and_what_is_known_of_both(world: Pairs, report: dict[str, Any]) -> None:
    chips = world.table("chips", "chip_set=city").query("view == 'chip'").set_index("image_id")
    pairs = world.pairs("city").set_index("image_id")
    for name, row in pairs.iterrows():
        assert row["chip"] == chips["chip"][name]
        assert (row["lat"], row["lon"]) == (chips["lat"][name], chips["lon"][name])
    wide = pairs.loc["wide"]
    assert (wide["author"], wide["licence"], wide["split"]) == ("author wide", "cc-by-2.0", None)
    assert wide["captured_at"] == pd.Timestamp("2014-05-06T07:08:09", tz=wide["captured_at"].tz)
    assert (wide["raster_uri"], wide["strip_id"], wide["chip_epsg"], wide["chip_format"]) == (
        STRIP,
        "one",
        32611,
        "png",
    )
    assert (wide["view"], wide["chip_width"], wide["chip_resolution_m"]) == ("chip", 12, 0.3)
    assert wide["chip_transform"] == {"a": 0.3, "b": 0.0, "c": 6e5, "d": 0.0, "e": -0.3, "f": 4e6}
    assert (pairs["area"]["other"], pairs["strip_id"]["other"]) == ("ortho", None)


def test_another_view_is_another_set_and_of_several_runs_the_latest_chip_counts(
    world: Pairs, report: dict[str, Any]
) -> None:
    at = world.pairs("city").set_index("image_id")["lat"]
    small = chip("small", at["small"], HERE[1], view="far")
    other_view = chip("wide", at["wide"], HERE[1])
    world.chips("twice", [chip("tall", 0.0, 0.0, view="far"), other_view, {**small, "resolution_m": 0.1}], "r1")
    world.chips("twice", [{**small, "resolution_m": 0.9}], "r2")
    given = {"root": str(world.tables), "name": "twice", "run": "all", "view": "far"}
    code, told = world.pair("far", chips=given)
    assert code == EXIT_DONE, told["error"]
    (row,) = world.pairs("far").to_dict("records")
    assert (row["image_id"], row["view"], row["chip_resolution_m"]) == ("small", "far", 0.9)
    rejects = world.rejects("far")
    assert (rejects["tall"], rejects["wide"]) == ("moved", "no_chip")
    assert world.pair("far", chips=given)[0] == EXIT_NOTHING_TO_DO
    code, told = world.pair("later", "r1", "--dry-run", chips=given)
    assert (code, told["status"]) == (EXIT_DONE, "dry_run")
    assert not (world.tables / "pairs/pair_set=later").exists()


def test_the_page_says_what_the_tables_hold(world: Pairs, report: dict[str, Any]) -> None:
    page, config = world.root / "page.html", world.root / "page.yaml"
    given = {"pairs": {"root": str(world.tables), "name": "city"}, "output": str(page), "samples": 6, "side": 96}
    config.write_text(json.dumps(given))
    code, told = world.command("report_pairs", config, "--dry-run")
    assert (code, told["status"], page.exists()) == (EXIT_DONE, "dry_run", False)
    code, told = world.command("report_pairs", config)
    assert code == EXIT_DONE, told["error"]
    text = page.read_text("utf-8")
    pairs = world.pairs("city")
    facts = dict(re.findall(r"<div><dt>(.*?)</dt><dd>(.*?)</dd></div>", text))
    assert facts == {
        **{"pairs": "8", "of images": "16", "areas": "2", "places": "6", "years of the photos": "2014"},
        **{"authors": str(pairs["author"].nunique())},
    }
    assert "Only places that 3 authors or more photographed are listed: others may be homes. There are none." in text
    rejects = pd.Series(world.rejects("city")).value_counts()
    for reason, n in rejects.items():
        assert f'<th scope="row">{reason}</th><td class="number">{n}</td>' in text
    assert f"{rejects.sum()} of 16 images became no pair" in text
    assert '<th scope="row">no_raster</th><td class="number">1</td>' in text  # of cut_chips
    pictures = [base64.b64decode(found) for found in re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)]
    assert len(pictures) == 12
    sizes = [Image.open(io.BytesIO(found)).size for found in pictures]
    assert all(max(size) <= 96 for size in sizes)
    assert sizes[1] == (12, 12)  # a chip: nothing is enlarged
    assert not re.search("author (copyright|moved)", text)
    # Both areas are shown, and authors only below their pictures.
    captions = re.findall(r"<figcaption><b>(.*?)</b>", text)
    assert sorted(set(captions)) == ["Vegas", "ortho"]
    named = set(re.findall(r"by <bdi>(.*?)</bdi>", text))
    assert named <= set(pairs["author"])
    assert all(
        text.count(f">{name}<") == len(re.findall(f"by <bdi>{name}</bdi>", text)) for name in set(pairs["author"])
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chips": {"name": "citty"}}, "did you mean 'city'"),
        ({"chips": {"name": "city", "view": "chips"}}, "chip"),
        ({"chips": {"name": "city", "run": "r7"}}, "no committed run 'r7'"),
        ({"licences": ["cc0-1.0"]}, "there is no pair"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_made_is_said(world: Pairs, change: dict[str, Any], said: str) -> None:
    if "chips" in change:
        change = {"chips": {"root": str(world.tables), **change["chips"]}}
    code, told = world.pair("none", **change)
    assert code == EXIT_BAD_INPUT
    assert said in told["error"]
    assert not (world.tables / "pairs/pair_set=none/run_id=r1/_SUCCESS").exists()


def test_patterns_match_as_in_a_shell() -> None:
    found = {
        text: bool(re.match(wildcard("*AOI_?_Vegas+(1)*"), text))
        for text in ("x/AOI_2_Vegas+(1).tif", "AOI_22_Vegas+(1)")
    }
    assert list(found.values()) == [True, False]


def test_the_longest_side_is_bounded_also_in_a_child_process() -> None:
    content = jpeg(picture(1, 1000, 10))
    with isolated() as found:
        for longest, shape in ((500, (5, 500, 3)), (40, (1, 40, 3)), (2000, (10, 1000, 3))):
            expected = decode(content, longest=longest)
            assert isinstance(expected, np.ndarray)
            assert expected.shape == shape
            assert np.array_equal(found(content, longest=longest), expected)


def haversine_km(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances between positions (n, 2) and (m, 2) in degrees, on the sphere, (n, m)."""
    (lat, lon), (other_lat, other_lon) = np.radians(a).T[:, :, None], np.radians(b).T[:, None]
    half = np.sin((other_lat - lat) / 2) ** 2 + np.cos(lat) * np.cos(other_lat) * np.sin((other_lon - lon) / 2) ** 2
    return 2 * 6371.0088 * np.arcsin(np.sqrt(half))


def test_splits_keep_areas_and_authors_apart_and_pairs_follow_them(tmp_path: Path, spark: SparkSession) -> None:
    made = Pairs(tmp_path)
    rng = np.random.default_rng(5)
    n = 600
    rows = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "lat": 48.2, "lon": 16.3})
    rows["lat"] += rng.uniform(0, 0.08, n)
    rows["lon"] += rng.uniform(0, 0.12, n)
    rows["author"] = [f"a{k}" for k in rng.integers(0, 400, n)]
    with_files = rows.iloc[:12].copy()
    # The same picture in two sizes, by two authors far from each other.
    content = {name: picture(k, 90, 60) for k, name in enumerate(with_files["image_id"])}
    content["i1"] = content["i0"].resize((180, 120), Image.Resampling.BICUBIC)
    (tmp_path / "files").mkdir()
    images = []
    for row in with_files.itertuples():
        path = tmp_path / f"files/{row.image_id}.jpg"
        path.write_bytes(jpeg(content[row.image_id]))
        pixels = decode(path.read_bytes(), SIDE)
        assert isinstance(pixels, np.ndarray)
        facts = {"author": row.author, "perceptual_hash": perceptual_hash(pixels)}
        images.append(image(row.image_id, row.lat, row.lon, str(path), path.read_bytes()) | facts)
    points = [image(row.image_id, row.lat, row.lon) | {"author": row.author} for row in rows.iloc[12:].itertuples()]
    for source, given in (("files", images), ("points", points)):
        commit(made.tables, IMAGES, {"source": source, "run_id": "r1"}, given)
    config = yaml.safe_load((CONF / "build_splits/pairs.yaml").read_text())
    code, told = made.run("build_splits", {**config, "draw": {"s2_level": 13}, "images": {"root": str(made.tables)}})
    assert code == EXIT_DONE, told["error"]
    splits = made.table("splits", "split_set=pairs").set_index("image_id")
    found = rows.set_index("image_id").join(splits)
    kept = found[found["split"] != "left_out"]
    assert kept.groupby("author")["split"].nunique().max() == 1
    by = {name: group[["lat", "lon"]].to_numpy() for name, group in kept.groupby("split")}
    assert set(by) == {"test", "validation", "train"}
    for name, other in (("test", "validation"), ("test", "train"), ("validation", "train")):
        assert haversine_km(by[name], by[other]).min() > 0.32
    assert splits["split"]["i0"] == splits["split"]["i1"] or "left_out" in (
        splits["split"]["i0"],
        splits["split"]["i1"],
    )
    chips = [chip(row.image_id, row.lat, row.lon, source="files") for row in with_files.itertuples()]
    in_train = [row for row in rows.iloc[12:].itertuples() if splits["split"][row.image_id] == "train"]
    listed = in_train[0]  # a list told of it, and of no file
    made.chips("city", [*chips, chip(listed.image_id, listed.lat, listed.lon, source="points")])
    code, told = made.pair("split", splits={"root": str(made.tables), "name": "pairs", "only": ["train", "validation"]})
    assert code == EXIT_DONE, told["error"]
    expected = splits.loc[with_files["image_id"]]
    wanted = expected[expected["split"].isin(["train", "validation"])]
    pairs = made.pairs("split").set_index("image_id")
    assert pairs["split"].to_dict() == wanted["split"].to_dict()
    rest = expected.drop(wanted.index)
    reasons = rest["reason"].where(rest["split"] == "left_out", "other_split").to_dict()
    rejects = made.rejects("split")
    assert {name: rejects[name] for name in reasons} == reasons
    others = {name: rejects[name] for name in rows["image_id"][12:]}
    assert others.pop(listed.image_id) == "no_bytes"
    assert set(others.values()) == {"no_chip"}
