"""`rank_regions` end to end, on two partitions of boxes, against a loop over atoms."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from box_partitions import box_partition
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from workspace import JOBS, Report, Workspace

from geosieve.ensemble.conformal import ConformalSets
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.ensemble.ranking import coarse_regions, coarsen, rank
from geosieve.geo.s2 import cell_ids
from geosieve.inference.artefact import Calibration, write_ensemble
from geosieve.inference.rank_regions import JOB, rank_regions, whole_images
from geosieve.inference.ranking_config import RankConfig
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO

BANDS = {f"band{k}": (-180.0, -90.0 + 18 * k, 180.0, -72.0 + 18 * k) for k in range(10)}
SIDES = {f"side{k}": (-180.0 + 60 * k, -90.0, -120.0 + 60 * k, 90.0) for k in range(6)}
IMAGES = 40
SUMMARY, REGIONS, REJECTS = "image_summary", "ranked_regions", "rejects"


class World(Workspace):
    """An overlay, and predictions of two models for it."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.jobs = {**JOBS, JOB: (RankConfig, rank_regions)}
        partitions = [box_partition(root, "bands", BANDS), box_partition(root, "sides", SIDES)]
        tables = {"root": str(self.tables)}
        code, report = self.run(
            "build_overlay", {"name": "world", "rasters": tables, "resolution_arcsec": 7200, "partitions": partitions}
        )
        assert code == EXIT_DONE, report["error"]
        self.overlay = read_published(spark, OverlayInput(root=str(self.tables), name="world")).overlay()
        self.hashes = {partition.name: partition.digest for partition in self.overlay.partitions}
        rng = np.random.default_rng(0)
        self.bands, self.sides = (rng.dirichlet(np.full(n, 0.4), IMAGES).astype(np.float32) for n in (10, 6))

    def rows(self, predictor: str, values: Any, partition: str, first: int = 0) -> pd.DataFrame:
        """A table as people have it."""
        ids = [f"image{first + k:03d}" for k in range(len(values))]
        return pd.DataFrame(
            {
                **{"source": "test", "image_id": ids, "predictor": predictor},
                **{"partition_hash": self.hashes[partition], "probabilities": list(values)},
            }
        )

    def both(self) -> pd.DataFrame:
        return pd.concat([self.rows("b", self.bands, "bands"), self.rows("s", self.sides, "sides")])

    def write(self, name: str, frame: pd.DataFrame, values: pa.DataType | None = None) -> dict[str, Any]:
        """An input of the job, from a file in several row groups, its rows in random order."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        shuffled = frame.sample(frac=1, random_state=1)
        kinds = {"probabilities": values or pa.list_(pa.float32())}
        arrays = {column: pa.array(shuffled[column].tolist(), kinds.get(column)) for column in shuffled}
        pq.write_table(pa.table(arrays), folder / "part.parquet", row_group_size=7)
        return {"uri": str(folder)}

    def rank(self, name: str, inputs: list[dict[str, Any]], *options: str, **change: Any) -> Report:
        config = {
            "name": name,
            "overlay": {"root": str(self.tables), "name": "world"},
            "members": {"b": {"partition": "bands"}, "s": {"partition": "sides"}},
            "predictions": inputs,
            **change,
        }
        return self.run(JOB, config, name, *options)

    def ranked(self, name: str, inputs: list[dict[str, Any]], **change: Any) -> dict[str, pd.DataFrame]:
        """The tables that it writes, each sorted."""
        code, report = self.rank(name, inputs, **change)
        assert code == EXIT_DONE, report["error"]
        return self.read(name)

    def read(self, name: str) -> dict[str, pd.DataFrame]:
        found = {}
        for table, partition in ((SUMMARY, "ranking"), (REGIONS, "ranking"), (REJECTS, f"job={JOB}/part")):
            leaf = self.tables / f"{table}/{partition}={name}/run_id={name}"
            frame = pq.read_table(leaf, partitioning=None).to_pandas()
            keys = {SUMMARY: ["image_id"], REGIONS: ["image_id", "rank"], REJECTS: ["id", "message"]}[table]
            found[table] = frame.sort_values(keys).reset_index(drop=True)
        answers = found[SUMMARY][["answer_run_id", "answer_source", "answer_image_id"]]
        assert [tuple(row) for row in answers.itertuples(index=False)] == [
            (name, row.source, row.image_id) for row in found[SUMMARY].itertuples()
        ]
        found[SUMMARY] = found[SUMMARY].drop(columns="answer_run_id")  # so that runs can be compared
        return found

    def densities(self, b: Any, s: Any, weights: tuple[float, float] = (1, 1), over_t: Any = (1, 1)) -> Any:
        """Density of each atom, not normalised, by a loop: Algorithms 1 and 2 with weights and temperatures."""
        found = np.ones(self.overlay.n_atoms)
        for atom, labels in enumerate(self.overlay.labels):
            for k, p in enumerate((b, s)):
                if p is not None:
                    q = np.asarray(p, float) ** over_t[k]
                    region = labels[k]
                    area = self.overlay.area_km2[self.overlay.labels[:, k] == region].sum()
                    found[atom] *= (q[region] / q.sum() / area) ** weights[k]
        return found

    def brute(self, density: Any) -> tuple[Any, Any, Any]:
        """Atoms by rank, and sums of their probabilities and areas."""
        mass = density * self.overlay.area_km2 / (density * self.overlay.area_km2).sum()
        order = np.argsort(-density, kind="stable")
        order = order[density[order] > 0]
        return order, np.cumsum(mass[order]), np.cumsum(self.overlay.area_km2[order])


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("ranking"), spark)


@pytest.fixture(scope="module")
def plain(world: World) -> dict[str, pd.DataFrame]:
    return world.ranked("plain", [world.write("both", world.both())])


def test_answers_are_those_of_a_loop_over_atoms(world: World, plain: dict[str, pd.DataFrame]) -> None:
    assert len(plain[SUMMARY]) == IMAGES and plain[REJECTS].empty
    for k, summary in plain[SUMMARY].iterrows():
        atoms, mass, area = world.brute(world.densities(world.bands[k], world.sides[k]))
        mine = plain[REGIONS][plain[REGIONS]["image_id"] == summary["image_id"]]
        n = int((mass < 0.9).sum()) + 1
        assert mine["atom"].tolist() == atoms[:n].tolist() and mine["rank"].tolist() == list(range(1, n + 1))
        assert mine["probability"].to_numpy() == pytest.approx(np.diff(mass[:n], prepend=0), abs=1e-7)
        assert mine["cumulative_probability"].to_numpy() == pytest.approx(mass[:n], abs=1e-7)
        assert mine["cumulative_area_km2"].to_numpy() == pytest.approx(area[:n])
        assert summary["area_50_km2"] == pytest.approx(area[(mass < 0.5).sum()])
        assert summary["area_90_km2"] == pytest.approx(area[n - 1])
        assert summary["regions"] == n and not summary["cut_short"] and summary["predictions"] == 2


def test_regions_are_described_as_the_overlay_describes_them(world: World, plain: dict[str, pd.DataFrame]) -> None:
    rows, atoms = plain[REGIONS], world.overlay
    assert (rows["overlay_hash"] == atoms.digest).all()
    assert rows["area_km2"].to_numpy() == pytest.approx(atoms.area_km2[rows["atom"]])
    assert rows["lat"].to_numpy() == pytest.approx(atoms.lat[rows["atom"]])
    band, side = atoms.labels[rows["atom"]].T
    corners = [(BANDS[f"band{b}"], SIDES[f"side{s}"]) for b, s in zip(band, side, strict=True)]
    assert rows["south"].tolist() == [b[1] for b, _ in corners] and rows["north"].tolist() == [b[3] for b, _ in corners]
    assert rows["west"].tolist() == [s[0] for _, s in corners] and rows["east"].tolist() == [s[2] for _, s in corners]


def test_files_are_sorted_by_place(world: World, plain: dict[str, pd.DataFrame]) -> None:
    leaf = world.tables / f"{REGIONS}/ranking=plain/run_id=plain"
    for path in leaf.glob("*.parquet"):
        ids = pq.read_table(path, partitioning=None)["s2_id"].to_pylist()
        assert ids == sorted(ids) and len(set(ids)) > 3
    rows = plain[REGIONS]
    assert (rows["s2_id"] == cell_ids(rows["lat"].to_numpy(), rows["lon"].to_numpy())).all()


def same(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    for table in (SUMMARY, REGIONS):
        pd.testing.assert_frame_equal(found[table], expected[table], rtol=1e-5, atol=1e-9)


def test_logarithms_and_lists_of_pairs_say_the_same(world: World, plain: dict[str, pd.DataFrame]) -> None:
    with np.errstate(divide="ignore"):
        logs = np.log(world.bands.astype(float)) + np.arange(IMAGES)[:, None] / 10  # normalised again
    given_logs = world.write("logs", world.rows("b", logs, "bands"), pa.list_(pa.float64()))
    pairs = [[{"region": k, "probability": float(p)} for k, p in enumerate(of)][::-1] for of in world.sides]
    frame = world.rows("s", pairs, "sides").assign(rest=0.0)
    kind = pa.list_(pa.struct([("region", pa.int32()), ("probability", pa.float32())]))
    given_pairs = world.write("pairs", frame, kind)
    inputs = [{**given_logs, "form": "log_probabilities"}, {**given_pairs, "form": "sparse"}]
    code, report = world.rank("forms", inputs)
    assert code == EXIT_DONE, report["error"]
    same(world.read("forms"), plain)
    assert report["details"]["log_probability_defect"] == pytest.approx(math.exp((IMAGES - 1) / 10) - 1, rel=1e-5)


def test_a_rest_is_spread_by_area(world: World) -> None:
    pairs = [[{"region": 2, "probability": 0.5}]]
    frame = world.rows("b", pairs, "bands").assign(rest=0.5)
    given = world.write("rest", frame, pa.list_(pa.struct([("region", pa.int64()), ("probability", pa.float64())])))
    found = world.ranked("rest", [{**given, "form": "sparse"}], members={"b": {"partition": "bands"}})
    rows = found[REGIONS]
    inside = world.overlay.labels[rows["atom"], 0] == 2
    assert rows["rank"][inside].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows["probability"][inside].sum() == pytest.approx(0.5)
    area = world.overlay.area_km2
    others = area[world.overlay.labels[:, 0] != 2].sum()  # where the other half is, everywhere as dense
    assert rows["probability"][~inside].to_numpy() == pytest.approx(rows["area_km2"][~inside].to_numpy() / others / 2)
    assert rows["cumulative_probability"].iloc[-1] >= 0.9 > rows["cumulative_probability"].iloc[-2]


def test_columns_and_values_of_ones_own(world: World, plain: dict[str, pd.DataFrame]) -> None:
    """Two files without a predictor, a source or a hash: the configuration says them."""
    bands, sides = (
        world.rows(name, values, partition)[["image_id", "probabilities"]].rename(columns={"image_id": "file"})
        for name, values, partition in (("b", world.bands, "bands"), ("s", world.sides, "sides"))
    )
    inputs = [
        {
            **world.write(f"own-{predictor}", frame),
            **{"predictor": predictor, "source": "test", "partition_hash": world.hashes[partition]},
            "columns": {"image_id": "file"},
        }
        for predictor, frame, partition in (("b", bands, "bands"), ("s", sides, "sides"))
    ]
    same(world.ranked("own", inputs), plain)


def test_weights_temperatures_and_priors(world: World) -> None:
    members = {
        "b": {"partition": "bands", "weight": 0.5, "temperature": 2.0},
        "s": {"partition": "sides", "temperature": 0.5},
    }
    priors = {"north": {"partition": "bands", "regions": [5, 6, 7, 8, 9]}}
    found = world.ranked("tempered", [world.write("both", world.both())], members=members, priors=priors)
    for k in range(IMAGES):
        density = world.densities(world.bands[k], world.sides[k], (0.5, 1.0), (0.5, 2.0))
        density[world.overlay.labels[:, 0] < 5] = 0.0
        atoms, mass, area = world.brute(density)
        mine = found[REGIONS][found[REGIONS]["image_id"] == f"image{k:03d}"]
        assert mine["atom"].tolist() == atoms[: (mass < 0.9).sum() + 1].tolist()
        assert found[SUMMARY]["area_50_km2"][k] == pytest.approx(area[(mass < 0.5).sum()])


@pytest.mark.parametrize(("by", "at"), [("mass", 0.3), ("area_km2", 6e7), ("regions", 7), ("coverage", 0.8)])
def test_where_answers_end(world: World, by: str, at: float) -> None:
    change: dict[str, Any] = {"cut": {"by": by, "at": at}, "most": 9}
    if by == "coverage":
        change["thresholds"] = {0.8: 0.7}
    found = world.ranked(f"cut_{by}", [world.write("both", world.both())], **change)
    for k, summary in found[SUMMARY].iterrows():
        _, mass, area = world.brute(world.densities(world.bands[k], world.sides[k]))
        whole = {
            "mass": (mass < at).sum() + 1,
            "area_km2": (area <= at).sum(),
            "regions": 7,
            "coverage": (mass <= 0.7).sum(),
        }[by]
        assert summary["regions"] == min(whole, 9) and summary["cut_short"] == (whole > 9)
        if by == "coverage":
            assert summary["set_regions"] == whole and summary["set_coverage"] == 0.8
            assert summary["set_area_km2"] == pytest.approx(area[whole - 1] if whole else 0.0)
    assert len(found[REGIONS]) == found[SUMMARY]["regions"].sum()


@pytest.mark.parametrize("by_stratum", [False, True])
def test_an_ensemble_artefact_brings_weights_and_conformal_sets(world: World, by_stratum: bool) -> None:
    overlay = world.overlay
    members = tuple(
        EnsembleMember(name, of, w, t) for name, of, w, t in (("b", "bands", 0.7, 1.5), ("s", "sides", 1.2, 0.8))
    )
    stratum = np.asarray(overlay.labels[:, 1])
    limits = np.array([0.5, 0.95, 0.2, np.inf, 0.7, 0.0, 0.9])  # the last: of atoms without a stratum
    sets = {
        False: ConformalSets(0.9, np.array([0.6]), None),
        True: ConformalSets(0.9, limits, np.where(stratum < 0, 6, stratum)),
    }
    uri = str(world.root / f"artefact{by_stratum}")
    told = [
        {
            **{"name": m.name, "partition": m.partition, "partition_hash": world.hashes[m.partition]},
            **{"predictor": "", "predictor_sha256": "", "weight": m.weight, "temperature": m.temperature},
        }
        for m in members
    ]
    facts = {
        **{"name": "e", "overlay": overlay.digest, "members": told, "strata": "sides", "fitted_on": ""},
        **{"images": {}, "scores": {}},
    }
    write_ensemble(uri, facts, {0.9: sets[False]}, {0.9: sets[True]}, Calibration(np.empty(0), np.empty(0)))
    found = world.ranked(
        f"artefact_{by_stratum}".lower(),
        [world.write("both", world.both())],
        **{"members": {}, "ensemble": uri, "coverage": 0.9, "by_stratum": by_stratum},
        cut={"by": "coverage", "at": 0.9},
    )
    predictions = {
        "b": Probabilities(world.hashes["bands"], world.bands),
        "s": Probabilities(world.hashes["sides"], world.sides),
    }
    (ranking,) = rank(Ensemble(overlay, members), predictions)
    holds = sets[by_stratum].holds(ranking)
    for k in range(IMAGES):
        mine = found[REGIONS][found[REGIONS]["image_id"] == f"image{k:03d}"]
        inside = holds[k] & (ranking.probability[k] > 0)
        assert mine["atom"].tolist() == ranking.atom[k][inside].tolist()
        assert (mine["rank"] - 1).tolist() == np.flatnonzero(inside).tolist()
        assert found[SUMMARY]["set_regions"][k] == holds[k].sum()
        assert found[SUMMARY]["set_area_km2"][k] == pytest.approx(ranking.area_km2[k][holds[k]].sum())


def test_nothing_finer_than_the_least_area_is_told(world: World) -> None:
    found = world.ranked("coarse", [world.write("both", world.both())], least_km2=2e7)
    region = coarse_regions(world.overlay, 2e7)
    predictions = {
        "b": Probabilities(world.hashes["bands"], world.bands),
        "s": Probabilities(world.hashes["sides"], world.sides),
    }
    members = (EnsembleMember("b", "bands"), EnsembleMember("s", "sides"))
    (ranking,) = rank(Ensemble(world.overlay, members), predictions)
    coarse = coarsen(ranking, region)
    rows = found[REGIONS]
    assert (rows["area_km2"] >= 2e7).all() and (rows["overlay_hash"] == coarse.overlay.digest).all()
    for k in range(IMAGES):
        mine = rows[rows["image_id"] == f"image{k:03d}"]
        n = int(coarse.within_mass(0.9)[k])
        assert mine["atom"].tolist() == coarse.atom[k, :n].tolist()
        assert mine["probability"].to_numpy() == pytest.approx(coarse.probability[k, :n])
    known = set(zip(coarse.overlay.lat.round(6), coarse.overlay.lon.round(6), strict=True))
    points = set(zip(found[SUMMARY]["lat"].round(6), found[SUMMARY]["lon"].round(6), strict=True))
    assert points <= known
    atoms = np.flatnonzero(region == rows["atom"][0])
    b, s = world.overlay.labels[atoms].T
    assert rows["south"][0] == min(BANDS[f"band{k}"][1] for k in b)
    assert rows["north"][0] == max(BANDS[f"band{k}"][3] for k in b)
    assert rows["west"][0] == min(SIDES[f"side{k}"][0] for k in s)


def test_bad_predictions_refuse_their_image_and_no_other(world: World) -> None:
    bands, sides = world.bands.tolist(), world.sides.tolist()
    bands[1][3] = -0.1
    bands[2][0] += 0.1
    bands[3] = bands[3][:9]
    bands[4][5] = math.nan
    bands[5] = []
    frame = pd.concat(
        [
            world.rows("b", bands, "bands"),
            world.rows("s", sides, "sides"),
            world.rows("s", sides[6:7], "sides", first=6),
            world.rows("b", bands[7:9], "bands", first=7).assign(image_id=None),
        ]
    )
    found = world.ranked("bad", [world.write("bad", frame)])
    rejects = found[REJECTS]
    assert dict(zip(rejects["id"], rejects["error_class"], strict=True)) == {
        **{f"test/image{k:03d}": "not_probabilities" for k in (1, 2, 4)},
        **{f"test/image{k:03d}": "wrong_length" for k in (3, 5)},
        "test/image006": "duplicate_prediction",
        None: "missing_id",
    }
    assert len(rejects) == 8 and rejects["message"].str.len().min() > 10
    assert found[SUMMARY]["image_id"].tolist() == [f"image{k:03d}" for k in (0, *range(7, IMAGES))]
    whole = world.read("plain")
    left = whole[REGIONS][whole[REGIONS]["image_id"].isin(found[SUMMARY]["image_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[REGIONS], left)


def test_bad_pairs_are_refused(world: World) -> None:
    def pair(region: int | None, p: float | None) -> dict[str, Any]:
        return {"region": region, "probability": p}

    lists = [
        [pair(0, 0.5), pair(0, 0.5)],
        [pair(10, 1.0)],
        [pair(None, 1.0)],
        [pair(3, None)],
        [pair(3, 0.25)],  # and a rest of 0.5
        [],
        [pair(1, 1.0)],
    ]
    rest = [0.0, 0.0, 0.0, 1.0, 0.5, 1.0, None]
    frame = world.rows("b", lists, "bands").assign(rest=pd.Series(rest, dtype=object))
    kind = pa.list_(pa.struct([("region", pa.int64()), ("probability", pa.float64())]))
    given = {**world.write("badpairs", frame, kind), "form": "sparse"}
    found = world.ranked("badpairs", [given], members={"b": {"partition": "bands"}})
    classes = dict(zip(found[REJECTS]["id"].str[-1:].astype(int), found[REJECTS]["error_class"], strict=True))
    assert classes == {**dict.fromkeys((0, 1, 2), "wrong_region"), **dict.fromkeys((3, 4), "not_probabilities")}
    assert found[SUMMARY]["image_id"].tolist() == ["image005", "image006"]


def test_missing_and_contradicting_predictions(world: World) -> None:
    """Image 0: both; 1: only bands; 2: an array that is null, so nothing; 3: members that exclude each other."""
    one = np.eye(10)[9].tolist()
    frame = pd.concat(
        [
            world.rows("b", [world.bands[0].tolist(), world.bands[1].tolist(), None, one], "bands"),
            world.rows("s", [world.sides[0].tolist()], "sides"),
        ]
    )
    priors = {"south": {"partition": "bands", "regions": [0, 1, 2, 3, 4]}}
    found = world.ranked("missing", [world.write("missing", frame)])
    summary = found[SUMMARY]
    assert summary["predictions"].tolist() == [2, 1, 0, 1]
    assert summary["no_evidence"].tolist() == [False, False, True, False]
    alone = found[REGIONS][found[REGIONS]["image_id"] == "image001"]
    atoms, mass, _ = world.brute(world.densities(world.bands[1], None))
    assert alone["atom"].tolist() == atoms[: (mass < 0.9).sum() + 1].tolist()
    anywhere = found[REGIONS][found[REGIONS]["image_id"] == "image002"]
    assert anywhere["probability"].to_numpy() == pytest.approx(anywhere["area_km2"] / world.overlay.area_km2.sum())
    found = world.ranked(
        "excluded", [world.write("missing", frame)], priors=priors, coverage=0.5, thresholds={0.5: 0.4}
    )
    summary = found[SUMMARY]
    assert summary["contradiction"].tolist() == [False, False, False, True]
    last = summary.iloc[3]
    assert last[["lat", "lon", "expected_km", "entropy", "area_50_km2", "area_90_km2"]].isna().all()
    assert last["regions"] == 0 and last["set_regions"] == world.overlay.n_atoms  # nothing excludes an atom


def test_one_predictor_needs_no_shuffle_but_its_repeats_are_found(world: World) -> None:
    bands = {"members": {"b": {"partition": "bands"}}}
    rows = world.rows("b", world.bands, "bands")
    found = world.ranked("one", [world.write("one", rows)], **bands)
    assert len(found[SUMMARY]) == IMAGES
    atoms, mass, _ = world.brute(world.densities(world.bands[0], None))
    mine = found[REGIONS][found[REGIONS]["image_id"] == "image000"]
    assert mine["atom"].tolist() == atoms[: (mass < 0.9).sum() + 1].tolist()
    twice = world.ranked("twice", [world.write("one", rows), world.write("again", rows[:2])], **bands)
    assert twice[REJECTS]["error_class"].tolist() == ["duplicate_prediction"] * 2
    left = found[SUMMARY][2:].reset_index(drop=True)
    pd.testing.assert_frame_equal(twice[SUMMARY], left)


def test_what_does_not_fit_is_named(world: World) -> None:
    both = world.write("both", world.both())
    old = world.write("old", world.both().assign(partition_hash="0" * 64))
    more = world.write("more", pd.concat([world.both(), world.rows("bb", world.bands, "bands")]))
    words = world.write("words", world.both().assign(probabilities="x"), pa.string())
    empty = world.write("empty", world.both()[:0])
    world.write("only", world.rows("b", world.bands, "bands"))
    refused: list[tuple[list[dict[str, Any]], dict[str, Any], int, str]] = [
        ([old], {}, EXIT_BAD_INPUT, "over another partition than the overlay's bands"),
        ([more], {}, EXIT_BAD_INPUT, "rows of predictor 'bb'"),
        ([words], {}, EXIT_BAD_INPUT, "not an array of numbers"),
        ([both | {"form": "sparse"}], {}, EXIT_BAD_INPUT, "no column 'rest'"),
        ([both | {"columns": {"image_id": "imageid"}}], {}, EXIT_BAD_INPUT, "image_id"),
        ([{"uri": str(world.root / "nowhere")}], {}, EXIT_BAD_INPUT, "nowhere"),
        ([empty], {}, EXIT_BAD_INPUT, "no prediction of b, s"),
        ([both | {"uri": f"{world.root}/only"}], {}, EXIT_BAD_INPUT, "no prediction of s"),
        ([world.write("nobody", world.both().assign(image_id=None))], {}, EXIT_BAD_INPUT, "predictions of any image"),
        ([both], {"members": {"b": {"partition": "band"}}}, EXIT_BAD_CONFIG, "bands"),
        ([both], {"members": {}}, EXIT_BAD_CONFIG, "either ensemble or members"),
        ([both], {"coverage": 0.9}, EXIT_BAD_CONFIG, "no threshold for coverage 0.9"),
        ([both], {"cut": {"by": "mass", "at": 1.5}}, EXIT_BAD_CONFIG, "between 0 and 1"),
        ([both], {"priors": {"p": {"partition": "sides", "regions": [6]}}}, EXIT_BAD_CONFIG, "0 to 5"),
        ([both], {"priors": {"p": {"partition": "sides", "weights": [1.0]}}}, EXIT_BAD_CONFIG, "1 weights for 6"),
        ([both], {"priors": {"b": {"partition": "sides", "regions": [1]}}}, EXIT_BAD_CONFIG, "members have this name"),
        ([both], {"least_km2": 1e12}, EXIT_BAD_CONFIG, "least_km2"),
        ([both], {"members": {"b": {"partition": "bands", "weight": math.nan}}}, EXIT_BAD_CONFIG, "weight"),
    ]
    for inputs, change, expected, text in refused:
        code, report = world.rank("refused", inputs, **change)
        assert (code, text in report["error"]) == (expected, True), (change, report["error"])


def test_the_query_of_the_page_finds_the_answers_that_touch_its_box(
    world: World, plain: dict[str, pd.DataFrame]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(SELECT source, image_id, sum\(probability\).*?)```", page, re.DOTALL)
    found = duckdb.sql(query.replace("tables/", f"{world.tables}/").replace("2026-11-25", "plain")).df()
    rows = plain[REGIONS]
    bands = [k for k, (_, south, _, north) in enumerate(BANDS.values()) if north >= 40 and south <= 45]
    sides = [k for k, (west, _, east, _) in enumerate(SIDES.values()) if east >= -5 and west <= 5]
    labels = world.overlay.labels[rows["atom"]]
    touching = rows[np.isin(labels[:, 0], bands) & np.isin(labels[:, 1], sides)]
    expected = touching.groupby("image_id")["probability"].sum()
    assert 0 < len(expected) < IMAGES
    mine = found.set_index("image_id")["probability"]
    assert mine.sort_index().to_dict() == pytest.approx(expected.to_dict()) and mine.is_monotonic_decreasing


def test_a_dry_run_and_a_second_run_write_nothing(world: World, plain: dict[str, pd.DataFrame]) -> None:
    before = sorted(world.tables.rglob("*"))
    both = world.write("both", world.both())
    code, report = world.rank("dry", [both], "--dry-run")
    assert code == EXIT_DONE and report["status"] == "dry_run"
    assert world.rank("plain", [both])[0] == EXIT_NOTHING_TO_DO
    assert sorted(world.tables.rglob("*")) == before


@settings(max_examples=60)
@given(images=st.lists(st.integers(1, 5), max_size=8), cuts=st.lists(st.integers(0, 24)))
def test_batches_are_cut_between_images(images: list[int], cuts: list[int]) -> None:
    ids = [str(k) for k, n in enumerate(images) for _ in range(n)]
    rows = pa.RecordBatch.from_pydict({"source": pa.array(["s"] * len(ids)), "image_id": pa.array(ids, pa.string())})
    ends = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    found = list(whole_images(rows.slice(a, b - a) for a, b in itertools.pairwise(ends)))
    assert [one for table in found for one in table["image_id"].to_pylist()] == ids
    last = [table["image_id"][-1].as_py() for table in found]
    assert len(set(last)) == len(last) and all(len(table) for table in found)
    for table, after in itertools.pairwise(found):
        assert table["image_id"][-1] != after["image_id"][0]


def test_the_overlay_is_of_all_boxes(world: World) -> None:
    assert world.overlay.n_atoms == 60 and isinstance(world.overlay, Overlay)
    assert world.overlay.area_km2.sum() == pytest.approx(4 * math.pi * 6371.0088**2, rel=1e-9)
