"""`fit_ensemble`: weights, temperatures and conformal thresholds of predictors over an overlay."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geosieve.ensemble.calibration import fit, log_score
from geosieve.ensemble.conformal import ConformalSets
from geosieve.ensemble.leading import scored
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.geo.arrays import I8
from geosieve.images.decode import decode
from geosieve.images.headers import Refusal
from geosieve.inference.artefact import Calibration, write_ensemble
from geosieve.inference.config import FitEnsembleConfig
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.models.predictor import TrainedPredictor
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import read_published
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.names import advice
from geosieve.runtime.store import open_input
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import ENSEMBLES
from geosieve.training.plan import ShardFiles
from geosieve.training.read import CommittedShards, read_shards

JOB = "fit_ensemble"
_IMAGES_AT_ONCE = 256
_FEWEST = 20
"""Images that are needed to fit, and as many to set thresholds."""


def _leaves(config: FitEnsembleConfig) -> list[Leaf]:
    return [Leaf(ENSEMBLES, {"ensemble": config.name})]


@publishes(_leaves)
def fit_ensemble(context: Context[FitEnsembleConfig], publication: Publication) -> int:
    """Write the artefact, and a row that says where it is. Returns 1, the number of ensembles.

    The images of the split are parted by a hash of their ids: some set weights and temperatures, the others, which are
    exchangeable with images that no one has seen, the thresholds.

    InputError if a predictor has learned another version of a partition than the overlay has, if an artefact was
    changed, or if there are too few images; ConfigError if the overlay or a predictor lacks a partition.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        overlay = read_published(spark, config.overlay).overlay()
        predictors = _predictors(config, overlay)
        names = [partition.name for partition in overlay.partitions]
        given = config.shards
        shards = read_shards(spark, given, names)
        _check_hashes(overlay, shards)
        files = shards.files(given.split, names)
        if config.strata is not None and config.strata not in names:
            raise ConfigError(f"strata: {advice(config.strata, names, 'the overlay has')}", where="strata")
    if context.dry_run:
        found = {name: f"{member.uri}, {member.partition}" for name, member in config.members.items()}
        context.show_plan({"overlay": overlay.digest, "shards": shards.run.uri, **found}, {})
        return 0
    with tempfile.TemporaryDirectory() as folder:
        with report.stage("predict"):
            predictions, labels, fits = _predict(config, predictors, files, Path(folder))
            truth, unseen = overlay.atoms_of(labels)
            if unseen:
                report.warn(f"{unseen} images have regions that no atom combines; they count in an atom of their cell")
        for rows, what in ((fits, "fit"), (~fits, "set thresholds")):
            if rows.sum() < _FEWEST:
                raise InputError(f"{rows.sum()} images to {what}: at least {_FEWEST} are needed", where=shards.run.uri)
        with report.stage("fit"):
            plain = Ensemble(
                overlay, tuple(EnsembleMember(name, member.partition) for name, member in config.members.items())
            )
            fitted = fit(plain, _rows(predictions, fits), truth[fits]).ensemble
            others, at = _rows(predictions, ~fits), truth[~fits]
            scores = {
                name: float(log_score(one, others, at)[0]) for name, one in (("plain", plain), ("fitted", fitted))
            }
        with report.stage("thresholds"):
            needed = fitted.credible_level(others, at)
            calibration = Calibration(needed, np.concatenate([some.entropy for some in scored(fitted, others)]))
            marginal = {c: ConformalSets.marginal(needed, c) for c in config.coverages}
            by_stratum = {}
            if config.strata is not None:
                stratum = overlay.labels[:, overlay.column(config.strata)]
                by_stratum = {c: ConformalSets.by_stratum(needed, at, stratum, c) for c in config.coverages}
    with report.stage("write"):
        uri = config.beside_tables("ensembles", config.name, report.run_id)
        hashes = {partition.name: partition.digest for partition in overlay.partitions}
        facts = {
            "name": config.name,
            "overlay": overlay.digest,
            "members": [
                {
                    "name": member.name,
                    "partition": member.partition,
                    "partition_hash": hashes[member.partition],
                    "predictor": config.members[member.name].uri,
                    "predictor_sha256": predictors[config.members[member.name].uri].digest,
                    "weight": member.weight,
                    "temperature": member.temperature,
                }
                for member in fitted.members
            ],
            "strata": config.strata,
            "fitted_on": f"{shards.run.uri}, split {given.split}",
            "images": {"weights": int(fits.sum()), "thresholds": int((~fits).sum())},
            "scores": scores,
        }
        written, digest = write_ensemble(uri, facts, marginal, by_stratum, calibration)
        row: Any = {
            "artefact": uri,
            "artefact_sha256": digest,
            "overlay_hash": overlay.digest,
            "members": [
                {name: getattr(member, name) for name in ("name", "partition", "predictor", "weight", "temperature")}
                for member in written.members
            ],
            "log_density": scores["fitted"],
        }
        publication.write(ENSEMBLES, spark.createDataFrame([row], ENSEMBLES.spark_schema()))
        report.rows_in = report.rows_out = 1
        report.details["ensemble"] = uri
        report.details["scores"] = scores
    return 1


def _predictors(config: FitEnsembleConfig, overlay: Overlay) -> dict[str, TrainedPredictor]:
    """The predictors by URI, each loaded once, with the hashes of their partitions checked."""
    hashes = {partition.name: partition.digest for partition in overlay.partitions}
    found: dict[str, TrainedPredictor] = {}
    for name, member in config.members.items():
        if member.partition not in hashes:
            told = advice(member.partition, list(hashes), "the overlay has")
            raise ConfigError(f"no partition {member.partition!r}: {told}", where=f"members.{name}.partition")
        if member.uri not in found:
            found[member.uri] = TrainedPredictor.load(member.uri, config.device, hashes)
        known = [partition.name for partition in found[member.uri].facts.partitions]
        if member.partition not in known:
            told = advice(member.partition, known, "the predictor has")
            raise ConfigError(f"no partition {member.partition!r}: {told}", where=f"members.{name}.partition")
    return found


def _check_hashes(overlay: Overlay, shards: CommittedShards) -> None:
    """InputError if the shards' labels are of other versions of the overlay's partitions."""
    for partition in overlay.partitions:
        if shards.hashes[partition.name] != partition.digest:
            raise InputError(
                f"the shards have labels of another version of partition {partition.name} than the overlay",
                where=shards.run.uri,
                hint="label the images again, or build the overlay again",
            )


def _predict(
    config: FitEnsembleConfig,
    predictors: dict[str, TrainedPredictor],
    files: ShardFiles,
    folder: Path,
) -> tuple[dict[str, Probabilities], I8, NDArray[np.bool_]]:
    """Probabilities by member, on disk below `folder`; labels, (images, partitions); which images set weights."""
    images, names = sum(files.rows), files.labels
    values: dict[str, Any] = {}
    hashes = {}
    for name, member in config.members.items():
        partition = next(p for p in predictors[member.uri].facts.partitions if p.name == member.partition)
        hashes[name] = partition.hash
        values[name] = np.memmap(folder / f"{len(values)}", np.float32, "w+", shape=(images, partition.regions))
    labels, fits = np.empty((images, len(names)), np.int64), np.empty(images, bool)
    at = 0
    for rows in _batches(files):
        some = slice(at, at + len(rows))
        pictures = [_decoded(row) for row in rows]
        for uri, predictor in predictors.items():
            found = predictor.log_probabilities(pictures)
            for name, member in config.members.items():
                if member.uri == uri:
                    values[name][some] = np.exp(found[member.partition])
        labels[some] = [[row[name] for name in names] for row in rows]
        fits[some] = [_hash(row) >= config.calibration_share for row in rows]
        at += len(rows)
    return {name: Probabilities(hashes[name], values[name]) for name in values}, labels, fits


def _batches(files: ShardFiles) -> Iterator[list[dict[str, Any]]]:
    for uri in files.uris:
        with open_input(uri) as file:
            for batch in pq.ParquetFile(file).iter_batches(
                _IMAGES_AT_ONCE, columns=["source", "image_id", "image", *files.labels]
            ):
                yield batch.to_pylist()


def _decoded(row: dict[str, Any]) -> NDArray[np.uint8]:
    pixels = decode(row["image"])
    if isinstance(pixels, Refusal):
        raise InputError(f"image {row['source']}/{row['image_id']} cannot be decoded: {pixels.error_class}")
    return pixels


def _hash(row: dict[str, Any]) -> float:
    """A number in [0, 1) that depends on the image's id only."""
    digest = hashlib.sha256(f"{row['source']}\0{row['image_id']}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _rows(predictions: dict[str, Probabilities], rows: NDArray[np.bool_]) -> dict[str, Probabilities]:
    return {name: Probabilities(found.partition_hash, found.values[rows]) for name, found in predictions.items()}
