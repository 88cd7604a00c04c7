"""Job `build_partitions`: build partitions from images, maps or published files, and write their tables."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field
from pyspark.sql import DataFrame

from geosieve.images.read import NOT_POSITIONED, POSITIONED, ImagesInput, read_images
from geosieve.job.main import Context
from geosieve.job.publishing import JobConfig, publishes
from geosieve.partitions.building.cells import Built
from geosieve.partitions.building.making import Inputs, Made
from geosieve.partitions.building.methods.adaptive_s2 import AdaptiveS2
from geosieve.partitions.building.methods.definitions import Definitions
from geosieve.partitions.building.methods.geocells import Geocells
from geosieve.partitions.building.methods.geoestimation_csv import GeoEstimationCsv
from geosieve.partitions.building.methods.quadtree import Quadtree
from geosieve.partitions.building.methods.quadtree_csv import QuadtreeCsv
from geosieve.partitions.read import BUILD_JOB, partitions_frame, regions_frame
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import PARTITIONS, REGIONS

Method = Annotated[
    AdaptiveS2 | Quadtree | Geocells | Definitions | GeoEstimationCsv | QuadtreeCsv, Field(discriminator="method")
]


class BuildConfig(JobConfig):
    """Configuration of `build_partitions`."""

    images: ImagesInput | None = Field(None, description="the images to build from, for methods that depend on images")
    build: Method


def _leaves(_: BuildConfig) -> list[Leaf]:
    return [Leaf(PARTITIONS, {"job": BUILD_JOB}), Leaf(REGIONS, {"job": BUILD_JOB})]


@publishes(_leaves)
def build_partitions(context: Context[BuildConfig], publication: Publication) -> int:
    """Build partitions with one method and publish the tables `partitions` and `regions_of_partition`.

    Returns the number of regions, or 0 on a dry run. Images without a position are ignored and counted. The report's
    details contain the results of the method, such as the number of images inside and outside of each partition, and
    the trials of a parameter search.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        points, nowhere, found = _images(context)
    if context.dry_run:
        context.show_plan(found, {} if points is None else {"images": points})
        return 0
    with report.stage("build"):
        made = config.build.make(Inputs(points, spark))
    report.details |= _details(made, found)
    for warning in made.warnings:
        report.warn(warning)
    if nowhere is not None:
        report.details["images_without_position"] = nowhere.count()
    with report.stage("write"):
        rows = [_row(built) for built in made.partitions]
        publication.write(PARTITIONS, partitions_frame(spark, rows))
        described = [(b.name, b.published.digest, b.published.regions) for b in made.partitions]
        report.rows_in = sum(regions.num_rows for _, _, regions in described)
        report.rows_out = publication.write(REGIONS, regions_frame(spark, described))
    return report.rows_in


def _images(context: Context[BuildConfig]) -> tuple[DataFrame | None, DataFrame | None, dict[str, Any]]:
    """Return the images with a position, those without, and facts about the input. None, None, {} without images."""
    chosen = context.config.images
    if chosen is None:
        return None, None, {}
    images = read_images(context.spark, chosen)
    images.tell(context.report)
    points = images.rows.where(POSITIONED).select("image_id", "source", "lat", "lon")
    return points, images.rows.where(NOT_POSITIONED), images.found()


def _row(built: Built) -> tuple[str, str, str, int, str]:
    """Return the row of `partitions_frame`."""
    published = built.published
    definition = json.dumps(published.definition, sort_keys=True)
    return built.name, published.digest, published.kind, published.regions.num_rows, definition


def _details(made: Made, found: dict[str, Any]) -> dict[str, Any]:
    partitions = {
        b.name: {"hash": b.published.digest, "kind": b.published.kind, "regions": b.published.regions.num_rows}
        for b in made.partitions
    }
    return {"inputs": found, "partitions": partitions, **made.facts}
