"""Runs of a ranking, small enough to be published by the dozen: images with some regions each, and copies of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schema import Table
from geosieve.tables.schemas import IMAGE_SUMMARY, PREDICTIONS, RANKED_REGIONS, SCANNED_FILES

SOURCE, OVERLAY = "shelf", "f" * 64
REGIONS = 3
"""Number of regions of an image's answer."""
TABLES = (SCANNED_FILES, PREDICTIONS, RANKED_REGIONS, IMAGE_SUMMARY)
COMPACTED = (PREDICTIONS, RANKED_REGIONS, IMAGE_SUMMARY)
Answer = tuple[str, str]
"""Run and image that an answer stands under."""


def publish(
    spark: SparkSession,
    root: str,
    run_id: str,
    images: Iterable[str],
    copies: Mapping[str, Answer] | None = None,
    ranking: str = "archive",
    config: str = "{}",
) -> None:
    """A run that answers `images`; `copies` are further images whose answers are there already."""
    own = {image: (run_id, image) for image in images}
    links = {**own, **(copies or {})}
    rows: dict[Table, list[dict[str, Any]]] = {
        SCANNED_FILES: [_scanned(image) for image in links],
        PREDICTIONS: [_prediction(image) for image in own],
        RANKED_REGIONS: [_region(image, rank) for image in own for rank in range(1, REGIONS + 1)],
        IMAGE_SUMMARY: [_summary(image, answer) for image, answer in links.items()],
    }
    leaves = [Leaf(table, {"ranking": ranking}) for table in TABLES]
    publication = Publication(spark, root, run_id, config, "0" * 64, leaves)
    assert publication.begin()
    for table, of in rows.items():
        tuples = [tuple(row.get(column.name) for column in table.columns) for row in of]
        publication.write(table, spark.createDataFrame(tuples, table.spark_schema()).coalesce(1))
    publication.commit(len(links), '{"status": "done"}')


def _number(image: str) -> int:
    return sum((place + 1) * ord(letter) for place, letter in enumerate(image))


def _scanned(image: str) -> dict[str, Any]:
    return {
        **{"uri": f"file:/{SOURCE}/{image}.jpg", "bytes": _number(image), "model_set": "m"},
        **{"source": SOURCE, "images_left": 0},
        "modified_at": datetime(2026, 1, 1, tzinfo=UTC),
    }


def _prediction(image: str) -> dict[str, Any]:
    return {
        **{"source": SOURCE, "image_id": image, "predictor": "p", "partition_hash": "a" * 64},
        **{"probabilities": [(_number(image), 0.5)], "rest": 0.5},
    }


def _region(image: str, rank: int) -> dict[str, Any]:
    numbers = dict.fromkeys(
        ("probability", "area_km2", "cumulative_probability", "cumulative_area_km2", "lat", "lon"), float(rank)
    )
    box = {"south": 0.0, "west": 0.0, "north": 1.0, "east": 1.0}
    key = {"source": SOURCE, "image_id": image, "rank": rank, "overlay_hash": OVERLAY}
    return {**key, **numbers, **box, "atom": _number(image) + rank, "s2_id": (7919 * _number(image) * rank) % 1009}


def _summary(image: str, answer: Answer) -> dict[str, Any]:
    return {
        **{"source": SOURCE, "image_id": image, "overlay_hash": OVERLAY, "predictions": 1, "no_evidence": False},
        **{"contradiction": False, "lat": float(_number(image) % 90), "lon": 1.0, "regions": REGIONS},
        **{"cut_short": False, "content_sha256": f"{_number(image):064x}", "model_set": "m"},
        **{"answer_run_id": answer[0], "answer_source": SOURCE, "answer_image_id": answer[1]},
    }
