"""`fit_ensemble` end to end: what it writes is what the functions give that it calls, over the same images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from box_partitions import box_partition
from pyspark.sql import SparkSession
from training_world import TrainingWorld
from workspace import JOBS

from geosieve.ensemble.calibration import fit, log_score
from geosieve.ensemble.conformal import quantile
from geosieve.ensemble.leading import scored
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.images.decode import decode
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.artefact import load_ensemble
from geosieve.inference.config import FitEnsembleConfig
from geosieve.inference.fit_ensemble import fit_ensemble
from geosieve.inference.geolocate import geolocate_archive
from geosieve.labels.read import REGION_COLUMNS
from geosieve.models.network import Network
from geosieve.models.predictor import TrainedPredictor, write_predictor
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, InputError

BANDS = {"south": (-180.0, -90.0, 180.0, 0.0), "north": (-180.0, 0.0, 180.0, 90.0)}
SIDES = {"west": (-180.0, -90.0, -60.0, 90.0), "middle": (-60.0, -90.0, 60.0, 90.0), "east": (60.0, -90.0, 180.0, 90.0)}


def predictor(world: TrainingWorld, overlay: Overlay, name: str, change: str = "") -> str:
    """An artefact with a random network, for the overlay's version of the partition."""
    partition = next(p for p in overlay.partitions if p.name == name)
    torch.manual_seed(len(name))
    network = Network("test_resnet", {name: partition.n_regions})
    torch.nn.init.normal_(network.heads[0].weight)
    uri = str(world.root / f"predictor-{name}{change}")
    told = {"name": name, "hash": partition.digest + change, "regions": partition.n_regions}
    facts = {"name": name, "backbone": "test_resnet", "partitions": [told], "shards": "", "training": {}, "code": {}}
    rows = [{"region": k, "name": str(k)} for k in range(partition.n_regions)]
    regions = {name: REGION_COLUMNS.empty_table().from_pylist(rows, REGION_COLUMNS)}
    sees = {"resize": 32, "crop": 32}
    write_predictor(uri, {**facts, "preprocessing": sees}, network.state_dict(), regions, "")
    return uri


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TrainingWorld:
    made = TrainingWorld(tmp_path_factory.mktemp("ensemble"), spark)
    scanning = {"geolocate_archive": (GeolocateConfig, geolocate_archive)}
    made.jobs = {**JOBS, "fit_ensemble": (FitEnsembleConfig, fit_ensemble), **scanning}
    made.publish(made.rows, "r1")
    partitions = [box_partition(made.root, "bands", BANDS), box_partition(made.root, "sides", SIDES)]
    code, report = made.label(partitions, sources=["photos"])
    assert code == EXIT_DONE, report["error"]
    root = {"root": str(made.tables)}
    config = {"name": "world", "rasters": root, "resolution_arcsec": 7200, "partitions": partitions}
    code, report = made.run("build_overlay", config)
    assert code == EXIT_DONE, report["error"]
    splits = [{"name": "validation", "share": 0.9}, {"name": "train", "share": 0.1}]
    split = {"name": "halves", "seed": 3, "groups": [], "draw": "image", "splits": splits}
    code, report = made.run("build_splits", {**split, "images": {**root, "sources": ["photos"], "run": "r1"}})
    assert code == EXIT_DONE, report["error"]
    code, report = made.prepare(labels={"partitions": ["bands", "sides"]})
    assert code == EXIT_DONE, report["error"]
    return made


@pytest.fixture(scope="module")
def overlay(spark: SparkSession, world: TrainingWorld) -> Overlay:
    return read_published(spark, OverlayInput(root=str(world.tables), name="world")).overlay()


@pytest.fixture(scope="module")
def members(world: TrainingWorld, overlay: Overlay) -> dict[str, dict[str, str]]:
    return {name: {"uri": predictor(world, overlay, name), "partition": name} for name in ("bands", "sides")}


def run(world: TrainingWorld, run_id: str, *options: str, **change: Any) -> tuple[int, dict[str, Any]]:
    root = str(world.tables)
    config = {
        "name": "both",
        "overlay": {"root": root, "name": "world"},
        "shards": {"root": root, "name": "test"},
        "strata": "bands",
        **change,
    }
    return world.run("fit_ensemble", config, run_id, *options)


def test_weights_and_thresholds_are_those_of_the_functions(
    world: TrainingWorld, overlay: Overlay, members: dict[str, dict[str, str]]
) -> None:
    code, report = run(world, "one", members=members)
    assert code == EXIT_DONE, report["error"]
    found = load_ensemble(report["details"]["ensemble"], overlay)
    rows = [row for row in world.shards().to_pylist() if row["split"] == "validation"]
    # Parted by a hash of source and id, as the page of the job says.
    keys = [hashlib.sha256(f"{row['source']}\0{row['image_id']}".encode()).digest()[:6] for row in rows]
    fits = np.array([int.from_bytes(key) / 2**48 >= 0.5 for key in keys])
    names = [partition.name for partition in overlay.partitions]
    truth, _ = overlay.atoms_of([[row[name] for name in names] for row in rows])
    pictures = [np.asarray(decode(row["image"])) for row in rows]
    p = {name: np.exp(TrainedPredictor.load(m["uri"]).log_probabilities(pictures)[name]) for name, m in members.items()}

    def of(chosen: np.ndarray) -> dict[str, Probabilities]:
        hashes = {partition.name: partition.digest for partition in overlay.partitions}
        return {name: Probabilities(hashes[name], values[chosen].astype(np.float32)) for name, values in p.items()}

    plain = Ensemble(overlay, tuple(EnsembleMember(name, name) for name in members))
    expected = fit(plain, of(fits), truth[fits]).ensemble
    for ours, theirs in zip(found.ensemble.members, expected.members, strict=True):
        assert (ours.name, ours.partition) == (theirs.name, theirs.partition)
        assert (ours.weight, ours.temperature) == pytest.approx((theirs.weight, theirs.temperature), rel=1e-3)
    needed = found.ensemble.credible_level(of(~fits), truth[~fits])
    bands = overlay.labels[truth[~fits], overlay.column("bands")]
    for coverage in (0.5, 0.9):
        assert found.marginal[coverage].thresholds[0] == pytest.approx(quantile(needed, coverage), rel=1e-6)
        for k in range(2):
            own = quantile(needed[bands == k], coverage)
            assert found.by_stratum[coverage].thresholds[k] == pytest.approx(own, rel=1e-6)
    assert found.facts.images == {"weights": int(fits.sum()), "thresholds": int((~fits).sum())}
    scores = [log_score(one, of(~fits), truth[~fits])[0] for one in (plain, found.ensemble)]
    assert [found.facts.scores["plain"], found.facts.scores["fitted"]] == pytest.approx(scores, abs=1e-4)
    (row,) = pq.read_table(world.tables / "ensembles/ensemble=both/run_id=one", partitioning=None).to_pylist()
    assert row["artefact"] == report["details"]["ensemble"] and row["overlay_hash"] == overlay.digest


def test_changed_files_and_other_overlays_are_refused(
    world: TrainingWorld, overlay: Overlay, members: dict[str, dict[str, str]]
) -> None:
    code, report = run(world, "two", members=members, strata=None)
    assert code == EXIT_DONE, report["error"]
    uri = report["details"]["ensemble"]
    assert load_ensemble(uri, overlay).by_stratum == {}
    other = Overlay(
        overlay.partitions, overlay.labels, overlay.area_km2, overlay.lat, overlay.lon, overlay.land_share, "x"
    )
    with pytest.raises(InputError, match="another overlay"):
        load_ensemble(uri, other)
    path = Path(uri, "thresholds.parquet")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="another SHA-256"):
        load_ensemble(uri, overlay)


def test_what_does_not_fit_is_named(world: TrainingWorld, overlay: Overlay, members: dict[str, dict[str, str]]) -> None:
    old = {"old": {"uri": predictor(world, overlay, "sides", change="0"), "partition": "sides"}}
    code, report = run(world, "x", members=old)
    assert code == EXIT_BAD_INPUT and "another version of partition sides" in report["error"]
    code, report = run(world, "x", members={"a": {**members["sides"], "partition": "side"}})
    assert code == EXIT_BAD_CONFIG and "sides" in report["error"]
    code, report = run(world, "x", members={"a": {**members["sides"], "partition": "bands"}})
    assert code == EXIT_BAD_CONFIG and "the predictor has" in report["error"]
    code, report = run(world, "x", members=members, strata="side")
    assert code == EXIT_BAD_CONFIG and "strata" in report["error"]
    code, report = run(
        world, "x", members=members, shards={"root": str(world.tables), "name": "test", "split": "train"}
    )
    assert code == EXIT_BAD_INPUT and "at least 20 are needed" in report["error"]


def test_a_dry_run_shows_and_writes_nothing(
    world: TrainingWorld, overlay: Overlay, members: dict[str, dict[str, str]]
) -> None:
    before = sorted(world.tables.rglob("*"))
    code, report = run(world, "dry", "--dry-run", members=members)
    assert code == EXIT_DONE and report["status"] == "dry_run"
    assert overlay.digest.startswith(report["details"]["inputs"]["overlay"].rstrip("…"))
    assert sorted(world.tables.rglob("*")) == before


def test_claims_and_vague_answers_are_told_by_the_calibration_images(
    world: TrainingWorld, overlay: Overlay, members: dict[str, dict[str, str]]
) -> None:
    """An archive is scanned with the artefact, and its claims are tested: the same as by the functions, in memory."""
    code, report = run(world, "scanned", members=members, strata=None)
    assert code == EXIT_DONE, report["error"]
    fitted = load_ensemble(report["details"]["ensemble"], overlay)
    config = {
        "name": "scan",
        "source": {"name": "scanned", "format": "photos", "uri": str(world.folder)},
        "overlay": {"root": str(world.tables), "name": "world"},
        **{"ensemble": report["details"]["ensemble"], "claim_level": 0.3, "domain_level": 0.2},
    }
    code, report = world.run("geolocate_archive", config, "s")
    assert code == EXIT_DONE, report["error"]
    leaf = world.tables / "image_summary/ranking=scan/run_id=s"
    found = pq.read_table(leaf, partitioning=None).to_pandas().set_index("image_id")
    assert len(found) > 80
    ids = [name for name in found.index if world.contents.get(name)]
    pictures = [np.asarray(decode(world.contents[name], 32)) for name in ids]
    hashes = {partition.name: partition.digest for partition in overlay.partitions}
    given = {
        name: Probabilities(hashes[name], np.exp(TrainedPredictor.load(m["uri"]).log_probabilities(pictures)[name]))
        for name, m in members.items()
    }
    (claimed,) = np.flatnonzero((overlay.lat > 0) & (abs(overlay.lon) < 60))  # of 48.9° north, 2.3° east
    # The networks see these pictures in other batches here, and sums differ in their last digits.
    needed = fitted.ensemble.credible_level(given, np.full(len(ids), claimed))
    vague = np.concatenate([some.entropy for some in scored(fitted.ensemble, given)])

    def least_and_most(known: np.ndarray, value: float) -> list[float]:
        return [(1 + (known >= value + off).sum()) / (known.size + 1) for off in (1e-4, -1e-4)]

    for k, name in enumerate(ids):
        row = found.loc[name]
        if "plain " in name or name.startswith("hostile/"):  # without EXIF
            assert row.claim_p is None or np.isnan(row.claim_p)
        else:
            low, high = least_and_most(fitted.calibration.credible_level, needed[k])
            assert low - 1e-9 <= row.claim_p <= high + 1e-9
            assert row.claim_contradicts == (row.claim_p < 0.3)
        low, high = least_and_most(fitted.calibration.entropy, vague[k])
        assert low - 1e-9 <= row.domain_p <= high + 1e-9
        assert row.out_of_domain == (row.domain_p < 0.2)
    assert found["claim_p"].nunique() > 5 and found["domain_p"].nunique() > 5
    images = pq.read_table(world.tables / "images/source=scanned/run_id=s", partitioning=None)
    assert images["lat"].null_count == len(images)


def test_without_calibration_nothing_can_be_tested(world: TrainingWorld, members: dict[str, dict[str, str]]) -> None:
    given = {name: {"predictor": member["uri"], "partition": name} for name, member in members.items()}
    config = {
        "name": "scan",
        "source": {"name": "scanned", "format": "photos", "uri": str(world.folder)},
        "overlay": {"root": str(world.tables), "name": "world"},
        **{"members": given, "claim_level": 0.1},
    }
    code, report = world.run("geolocate_archive", config, "t")
    assert code == EXIT_BAD_CONFIG and "claim_level: p-values need the images" in report["error"]
