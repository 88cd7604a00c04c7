"""Job `geolocate_archive`: from the photos of an archive to ranked regions. Scheduled runs do what is new.

1. The source is listed. Files that an earlier run of the ranking is done with are passed over.
2. The work is parted by a hash of names. Parts are written one by one, and those that are written survive the driver.
3. The images of a part are catalogued, as `ingest_images` does. Those with an answer already, from whatever file, are
   linked to it.
4. Of the others, one image per content is read again, looked at by all predictors, and ranked (`looking`).
"""

from __future__ import annotations

import getpass
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pyspark.broadcast import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.images.archived import IN_ARCHIVE, STREAMED, list_archives
from geosieve.images.content import CHANGED_CONTENT, MISSING_FILE, placed
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.artefact import FittedEnsemble
from geosieve.inference.image_predictors import Predictors, Recipe, Seat
from geosieve.inference.looking import LEFT, LOOKED, WANTED, Checks, Looker
from geosieve.inference.ranker import Ranker, read_ranker, regions_of
from geosieve.inference.scan import Earlier, Work, list_source
from geosieve.job.main import Context
from geosieve.overlay.read import read_published
from geosieve.runtime.errors import ConfigError, InputError, RetryableError
from geosieve.runtime.files import Files
from geosieve.runtime.frames import anew_on_disk
from geosieve.runtime.identity import content_digest
from geosieve.runtime.lease import Lease, held, scan_lock
from geosieve.tables.publish import Leaf, Publication, Shard
from geosieve.tables.schemas import (
    AUDIT,
    IMAGE_KEY,
    IMAGE_SUMMARY,
    IMAGES,
    PREDICTIONS,
    RANKED_REGIONS,
    REJECTS,
    SCANNED_FILES,
)

JOB = "geolocate_archive"
_STREAMED_IMAGE_BYTES = 100_000
"""About the size of an image, by which those of a compressed tar are guessed when the parts are planned."""
_IMAGES_PER_FILE = 5_000
_CONTENT, _WHY = "content_sha256", "why"
_KEYS = (*IMAGE_KEY, _CONTENT)
_POINTERS = ("answer_run_id", "answer_source", "answer_image_id")
_TOLD = (*_POINTERS, *(c.name for c in IMAGE_SUMMARY.columns if c.name not in (*_KEYS, *_POINTERS)))
"""Columns of `image_summary` that all images with one content share."""


def _leaves(config: GeolocateConfig) -> list[Leaf]:
    values = {"ranking": config.name}
    of_ranking = (AUDIT, SCANNED_FILES, PREDICTIONS, RANKED_REGIONS, IMAGE_SUMMARY)
    rejects = Leaf(REJECTS, {"job": JOB, "part": config.name})
    return [rejects, Leaf(IMAGES, {"source": config.source.name}), *(Leaf(table, values) for table in of_ranking)]


def geolocate_archive(context: Context[GeolocateConfig]) -> None:
    """Write the answers for the images of a source that are new. Without any, no run is written.

    RetryableError if another run of the ranking is at work. InputError if an artefact was changed, a predictor tells
    other partitions than the overlay's or returns arrays of another shape, or fails at every image. ConfigError if the
    configuration asks for what the ensemble does not have.
    """
    config, report, spark = context.config, context.report, context.spark
    began = time.time()
    publication = context.publication(config.output, _leaves(config))
    with report.stage("inputs"):
        ranker, fitted = read_ranker(spark, config)
        checks = _checks(context, fitted)
        seats = _seats(config, fitted, ranker)
        predictors = Predictors.load(seats, "cpu")
        predictors.check({p.name: p.digest for p in ranker.answerer.ensemble.overlay.partitions})
        model_set = _model_set(config, ranker, predictors)
    earlier = Earlier(spark, config.output, config.name, config.source.name, model_set)
    if context.dry_run:
        listed = list_source(spark, config.source, None)
        told = {seat.member: f"{seat.recipe}, {seat.partition}" for seat in seats}
        found = f"{listed.files} files and {listed.archives} archives"
        context.show_plan({config.source.uri: found, "model set": model_set, **told}, {"files": listed.new_files})
        return
    deadline = None if config.limits.minutes is None else began + 60 * config.limits.minutes
    pictures = (predictors.side, config.source.limits, config.batch)
    looker = Looker(ranker, seats, config.device, *pictures, config.top, checks, deadline)
    lock = scan_lock(config.output, config.name)
    with held(Files(spark), lock, report.run_id, 60 * config.lock_minutes) as lease, ExitStack() as kept:
        if publication.committed():
            report.status = "nothing_to_do"
            return
        with report.stage("list"):
            work = _list(context, earlier, kept)
        if work.is_empty() or not publication.begin():
            report.status = "nothing_to_do"
            return
        parts = _parts(lease, work, config.images_per_part)
        steady = _are_steady(lease, work, resumed=publication.rows_in > 0)
        run = _Run(context, publication, earlier, looker, work)
        for shard in publication.shards([*(f"part {k} of {parts}" for k in range(parts)), "audit"]):
            lease.check()
            if shard.index < parts:
                run.do(shard, parts)
            else:
                if not steady:
                    run.leave_archives(shard)
                _audit(context, shard, model_set, predictors, ranker, began, run.counts)
        report.rows_in = publication.rows_in
        run.tell()
        lease.check()
        publication.commit(report.rows_in, report.to_json(status="done"))


def _seats(config: GeolocateConfig, fitted: FittedEnsemble | None, ranker: Ranker) -> tuple[Seat, ...]:
    if fitted is not None:
        recipes = {member.name: Recipe(member.predictor) for member in fitted.facts.members}
    else:
        recipes = {name: member.recipe for name, member in config.members.items()}
    return tuple(Seat(name, recipes[name], partition) for name, partition in ranker.answerer.partitions.items())


def _checks(context: Context[GeolocateConfig], fitted: FittedEnsemble | None) -> Checks:
    config = context.config
    asked = [name for name in ("claim_level", "domain_level") if getattr(config, name) is not None]
    calibration = None if fitted is None else fitted.calibration
    if asked and (calibration is None or config.priors):
        raise ConfigError(
            f"{asked[0]}: p-values need the images on which just this ensemble was calibrated",
            where=config.ensemble or "members",
            hint="name an ensemble artefact that fit_ensemble has written, and no priors beside it",
        )
    grid = None
    if config.claim_level is not None and not context.dry_run:
        grid = read_published(context.spark, config.overlay).atom_grid()
    return Checks(calibration, config.claim_level, config.domain_level, grid)


def _model_set(config: GeolocateConfig, ranker: Ranker, predictors: Predictors) -> str:
    """A hash of all that an answer depends on, but the image."""
    asked = config.model_dump(
        mode="json",
        include={
            "cut",
            "most",
            "coverage",
            "by_stratum",
            "thresholds",
            "least_km2",
            "top",
            "claim_level",
            "domain_level",
        },
    )
    sets, limits = ranker.answerer.sets, config.source.limits
    members = [
        {
            "name": member.name,
            "partition": member.partition,
            "weight": member.weight,
            "temperature": member.temperature,
            "fixed": member.fixed,
        }
        for member in ranker.answerer.ensemble.members
    ]
    facts = {
        "asked": asked,
        "overlay": ranker.digest,
        "members": members,
        "thresholds": None if sets is None else sets.thresholds,
        "predictors": {seat.member: predictors.loaded[seat.recipe].digest for seat in predictors.seats},
        "pixels": limits.pixels,
    }
    return content_digest("model set", 1, facts)


def _list(context: Context[GeolocateConfig], earlier: Earlier, kept: ExitStack) -> Work:
    config, spark, report = context.config, context.spark, context.report
    done = earlier.done(JOB, config.retry) if config.since == "last" else None
    listed = list_source(spark, config.source, done)
    files, archives = (kept.enter_context(anew_on_disk(of)) for of in (listed.new_files, listed.new_archives))
    uris = [row["uri"] for row in archives.select("uri").collect()]
    members = kept.enter_context(anew_on_disk(list_archives(spark, uris, config.source.limits)))
    report.details["files"] = {"listed": listed.files, "new": files.count()}
    report.details["archives"] = {"listed": listed.archives, "new": len(uris)}
    return Work(config.source, listed.folder, files, archives, members)


def _parts(lease: Lease, work: Work, images: int) -> int:
    """The number of parts: that of an earlier attempt at this run, if there was one."""
    if "parts" not in lease.note:
        streams = work.members.where(STREAMED).select("uri").distinct()
        guessed = work.archives.join(streams, "uri", "left_semi").agg(F.sum("bytes")).first()
        streamed = 0 if guessed is None or guessed[0] is None else guessed[0] // _STREAMED_IMAGE_BYTES
        rows = work.files.count() + work.members.where(f"NOT {STREAMED}").count() + streamed
        lease.keep({**lease.note, "parts": max(1, -(-rows // images))})
    return int(lease.note["parts"])


def _are_steady(lease: Lease, work: Work, resumed: bool) -> bool:
    """Whether the archives are those of all earlier attempts at this run. `resumed`: one has written a part."""
    facts = "hex(bit_xor(xxhash64(uri, bytes, modified_at)))"
    found = work.archives.agg(F.expr(f"concat(count(*), ' ', coalesce({facts}, ''))").alias("archives")).first()
    assert found is not None
    if lease.note.get("archives") != found["archives"]:
        same = "archives" not in lease.note and not resumed
        lease.keep({**lease.note, "archives": found["archives"] if same else None})
    return lease.note["archives"] is not None


@dataclass(frozen=True)
class _Counts:
    """Of a run: images that predictors looked at, copies of others, images that are left, and rejects by class."""

    computed: int
    linked: int
    left: int
    rejected: dict[str, int]


@dataclass
class _Run:
    """What all parts of a run share."""

    context: Context[GeolocateConfig]
    publication: Publication
    earlier: Earlier
    looker: Looker
    work: Work

    def __post_init__(self) -> None:
        """Count the images that predictors have looked at in parts of earlier attempts."""
        self._computed = 0
        if self.publication.rows_in:
            written = self.publication.written(IMAGE_SUMMARY)
            self._computed = written.where(_is_own(self.context.report.run_id)).count()

    @cached_property
    def _shared(self) -> Broadcast[Looker]:
        return self.context.spark.sparkContext.broadcast(self.looker)

    def do(self, shard: Shard, parts: int) -> None:
        """Write one part. What is joined by content is broadcast: a part has only so many images."""
        config, report, work = self.context.config, self.context.report, self.work.part(shard.index, parts)
        if self.looker.late():
            shard.write(SCANNED_FILES, self._scanned(work.touched().withColumn("images_left", F.lit(1))))
            shard.commit(0)
            return
        with ExitStack() as kept:
            with report.stage("catalogue"):
                rows = kept.enter_context(anew_on_disk(work.rows().withColumn("source", F.lit(config.source.name))))
                rows.count()  # a broadcast must not wait for it: Spark gives up after five minutes
                rows = self._few(rows)  # each kind of file and of fault has come in partitions of its own
                good = rows.where("error_class IS NULL")
                before = kept.enter_context(anew_on_disk(self._before(good)))
                before.count()
                if config.since == "last":
                    known = before.select(*_KEYS).distinct()
                    good = good.join(F.broadcast(known), list(_KEYS), "left_anti")
                links = _links(before)
            with report.stage("look"):
                new = good.join(F.broadcast(links.select(_CONTENT)), _CONTENT, "left_anti")
                answers = kept.enter_context(anew_on_disk(self._looked(new, kept)))
                answered = self._answered(answers)
            with report.stage("write"):
                settled = kept.enter_context(anew_on_disk(self._few(self._settled(good, links, answers))))
                self._write(shard, work, rows.where("error_class IS NOT NULL"), settled, self._few(answers))
                self._computed += answered

    def _few(self, rows: DataFrame) -> DataFrame:
        """Rows of a part in few partitions, each of which becomes a file of every table."""
        most = self.context.spark.sparkContext.defaultParallelism
        return rows.coalesce(max(1, min(most, self.context.config.images_per_part // _IMAGES_PER_FILE)))

    def _before(self, good: DataFrame) -> DataFrame:
        """Rows of `image_summary` with the content of one of these images, of earlier runs and earlier parts."""
        names = [column.name for column in IMAGE_SUMMARY.columns]
        found = self.earlier.rows(IMAGE_SUMMARY).select(*names)
        if self.publication.rows_in:
            found = found.unionByName(self.publication.written(IMAGE_SUMMARY).select(*names))
        return found.join(F.broadcast(good.select(_CONTENT).distinct()), _CONTENT, "left_semi")

    def _looked(self, new: DataFrame, kept: ExitStack) -> DataFrame:
        """Rows of LOOKED, one per content."""
        limit = self.context.config.limits.images
        place = [name for name in self._wanted() if name not in ("uri", "offset", "image_id", _CONTENT)]
        first = F.min(F.struct("uri", "offset", "image_id", *place)).alias("first")
        chosen = kept.enter_context(anew_on_disk(new.groupBy(_CONTENT).agg(first).select(_CONTENT, "first.*")))
        if limit is not None:
            chosen = chosen.orderBy("uri", "offset", "image_id").limit(max(0, limit - self._computed))
        size = chosen.agg(F.sum("length")).first()
        looker = self._shared
        tasks = placed(chosen.select(*self._wanted()), 0 if size is None else size[0] or 0)
        return tasks.mapInArrow(lambda batches: looker.value.look(batches), LOOKED)

    def _wanted(self) -> tuple[str, ...]:
        """Columns of what is looked at. Positions go there only to be tested; predictors see pictures."""
        return WANTED if self.context.config.claim_level is None else (*WANTED, "lat", "lon")

    def _answered(self, answers: DataFrame) -> int:
        """Number of answers. InputError if a predictor fails at every image: then it is no fault of the images."""
        failed = F.col("error_class").isin("predictor_failed", "not_probabilities")
        seen = F.coalesce(F.col("error_class") != LEFT, F.lit(True))
        fine = F.count("*") - F.count("error_class")
        counts = (F.count_if(seen).alias("seen"), F.count_if(failed).alias("failed"), fine.alias("fine"))
        (found,) = answers.agg(*counts, F.min(F.when(failed, F.col("message"))).alias("example")).collect()
        if found["failed"] and found["seen"] == found["failed"]:
            raise InputError(
                f"the predictor fails at every image: {found['example']}", hint="nothing of this part was kept"
            )
        return int(found["fine"])

    def _settled(self, good: DataFrame, links: DataFrame, answers: DataFrame) -> DataFrame:
        """Each good image with what became of it: columns of `image_summary`, or `why` and `message`."""
        own = {
            "answer_run_id": F.lit(self.context.report.run_id),
            "answer_source": F.col("source"),
            "answer_image_id": F.col("image_id"),
            "model_set": F.lit(self.earlier.model_set),
            _WHY: F.col("error_class"),
        }
        told = answers.drop("answer", "said").withColumns(own)
        nothing = {c.name: F.lit(None).cast(c.spark_type) for c in IMAGE_SUMMARY.columns if c.name not in told.columns}
        told = told.withColumns(nothing)
        columns = [_CONTENT, *_TOLD, _WHY, "message"]
        of_links = links.withColumns({_WHY: F.lit(None).cast("string"), "message": F.lit(None).cast("string")})
        every = told.select(*columns).unionByName(of_links.select(*columns))
        images = good.select(F.struct(*(column.name for column in IMAGES.columns)).alias("image"), *_KEYS)
        found = images.join(F.broadcast(every.withColumn("_reached", F.lit(True))), _CONTENT, "left")
        # That a file has gone or changed says nothing about others that had the same content.
        gone = F.col(_WHY).isin(MISSING_FILE, CHANGED_CONTENT) & ~_is_own(self.context.report.run_id)
        left = F.col("_reached").isNull() | gone
        return found.withColumn(_WHY, F.when(left, F.lit(LEFT)).otherwise(F.col(_WHY)))

    def _write(self, shard: Shard, work: Work, refused: DataFrame, settled: DataFrame, answers: DataFrame) -> None:
        good = settled.where(f"{_WHY} IS NULL")
        left = settled.where(f"{_WHY} = '{LEFT}'")
        failed = settled.where(f"{_WHY} != '{LEFT}'")
        as_reject = ["id", "uri", "stage", "error_class", "message"]
        rejects = refused.select("*", F.col("image_id").alias("id"), F.lit("read").alias("stage")).select(*as_reject)
        of_failed = failed.select(
            F.col("image_id").alias("id"), "image.uri", F.lit("look").alias("stage"), F.col(_WHY), F.col("message")
        )
        shard.write(REJECTS, self._few(rejects.unionByName(of_failed.withColumnRenamed(_WHY, "error_class"))))
        shard.write(IMAGES, _catalogue(good.select("image.*"), self.context.config.keep_positions))
        fine = answers.where("error_class IS NULL")
        said = shard.write(PREDICTIONS, fine.select(*IMAGE_KEY, F.inline("said")))
        ranked = shard.write(RANKED_REGIONS, regions_of(answers, self.looker.ranker))
        by_file = left.groupBy("image.uri").agg(F.count("*").alias("images_left"))
        touched = work.touched().join(F.broadcast(by_file), "uri", "left").fillna(0, "images_left")
        shard.write(SCANNED_FILES, self._scanned(touched))
        shard.write(IMAGE_SUMMARY, good.select(*(column.name for column in IMAGE_SUMMARY.columns)))
        own = F.col(_WHY).isNull() & _is_own(self.context.report.run_id)
        (found,) = settled.agg(
            F.count_if(F.expr(f"{_WHY} IS NULL OR {_WHY} != '{LEFT}'")).alias("rows"),
            F.count_if(own).alias("own"),
            F.coalesce(F.sum(F.when(own, F.col("regions"))), F.lit(0)).alias("regions"),
        ).collect()
        if (said, ranked) != (len(self.looker.seats) * found["own"], found["regions"]):
            raise RetryableError(
                "answers were lost with an executor, and were others when they were computed again: a file has "
                "changed, or the time was over",
                hint="run again; the parts before are kept",
            )
        shard.commit(refused.count() + found["rows"])

    def leave_archives(self, shard: Shard) -> None:
        """Say that no archive is done: between attempts some have changed, or have come, and their members are parted.

        A part that an earlier attempt has written lacks those that are new. The next run finds what is missing.
        """
        archives = self.publication.written(SCANNED_FILES).where(IN_ARCHIVE).select("uri", "bytes", "modified_at")
        shard.write(SCANNED_FILES, self._scanned(archives.distinct().withColumn("images_left", F.lit(1))))
        self.context.report.warn(
            "archives have come or changed since this run began; the next run looks at all of them"
        )

    def _scanned(self, files: DataFrame) -> DataFrame:
        values = {"source": F.lit(self.context.config.source.name), "model_set": F.lit(self.earlier.model_set)}
        found = files.withColumns(values).withColumn("images_left", F.col("images_left").cast("bigint"))
        return self._few(found.select(*(column.name for column in SCANNED_FILES.columns)))

    @cached_property
    def counts(self) -> _Counts:
        """Counts of all parts, which must be written."""
        written = self.publication.written
        own = F.count_if(_is_own(self.context.report.run_id)).alias("own")
        (images,) = written(IMAGE_SUMMARY).agg(F.count("*").alias("all"), own).collect()
        (left,) = written(SCANNED_FILES).agg(F.coalesce(F.sum("images_left"), F.lit(0)).alias("left")).collect()
        rejected = sorted(written(REJECTS).groupBy("error_class").count().collect())
        by_class = {row["error_class"]: row["count"] for row in rejected}
        return _Counts(images["own"], images["all"] - images["own"], left["left"], by_class)

    def tell(self) -> None:
        """Put counts into the report."""
        report, counts = self.context.report, self.counts
        report.rows_out, report.rejected = counts.computed + counts.linked, counts.rejected
        report.details["images"] = {"computed": counts.computed, "linked": counts.linked}
        report.details["images_left"] = counts.left
        if counts.left:
            report.warn(
                f"{counts.left} images or files are left for the next run: a limit was reached, or files changed"
            )


def _is_own(run_id: str) -> Any:
    """Condition: a predictor has looked at just this image in this run."""
    return (
        (F.col("answer_run_id") == run_id)
        & (F.col("answer_source") == F.col("source"))
        & (F.col("answer_image_id") == F.col("image_id"))
    )


def _links(before: DataFrame) -> DataFrame:
    """One answer of earlier images for each content that has one: its content and _TOLD."""
    # Answers to one content are equal; which of them is taken must not depend on the order of rows.
    return before.groupBy(_CONTENT).agg(F.min(F.struct(*_TOLD)).alias("first")).select(_CONTENT, "first.*")


def _catalogue(rows: DataFrame, positions: bool) -> DataFrame:
    """Rows of `images`; without `positions`, nothing of them tells where EXIF says that it was taken."""
    names = [column.name for column in IMAGES.columns]
    if positions:
        return rows.select(*names)
    nothing = F.lit(None).cast("double")
    coded = F.transform("warnings", lambda one: F.struct(one["code"].alias("code"), F.lit("").alias("message")))
    return rows.withColumns({"lat": nothing, "lon": nothing, "warnings": coded}).select(*names)


def _audit(
    context: Context[GeolocateConfig],
    shard: Shard,
    model_set: str,
    predictors: Predictors,
    ranker: Ranker,
    began: float,
    counts: _Counts,
) -> None:
    config = context.config
    user = "unknown"
    with suppress(OSError, KeyError):  # a container may run under a number without a name
        user = getpass.getuser()
    row: dict[str, Any] = {
        "started_at": datetime.fromtimestamp(began, UTC),
        "user": user,
        "host": socket.gethostname(),
        "source": config.source.name,
        "uri": config.source.uri,
        "model_set": model_set,
        "overlay_hash": ranker.answerer.ensemble.overlay.digest,
        "predictors": [
            {"member": s.member, "predictor": str(s.recipe), "sha256": predictors.loaded[s.recipe].digest}
            for s in predictors.seats
        ],
        "images": counts.computed + counts.linked,
        "computed": counts.computed,
        "rejected": sum(counts.rejected.values()),
        "least_km2": config.least_km2,
        "claims_tested": config.claim_level is not None,
        "positions_kept": config.keep_positions,
    }
    frame = context.spark.createDataFrame([tuple(row[c.name] for c in AUDIT.columns)], AUDIT.spark_schema())
    shard.write(AUDIT, frame)
    shard.commit(0)
