"""Shared parts of the methods that build partitions: inputs, results, counts and warnings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession

from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import OUTSIDE
from geosieve.geo.outlines import lat_lon
from geosieve.partitions.base import region_table
from geosieve.partitions.building import counting
from geosieve.partitions.building.cells import Built
from geosieve.runtime.errors import ConfigError, InputError, IntegrityError
from geosieve.runtime.files import Files

_LEAST_KM2 = 25e-6  # 5 m × 5 m: the accuracy of smartphones under an open sky (gps.gov: 4.9 m)
_NAMED = 3  # cells that a warning lists

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower case, as a column name in SQL")]


@dataclass(frozen=True)
class Inputs:
    """Inputs of a method. `images`: one row per image, with columns image_id, source, lat and lon (valid degrees)."""

    images: DataFrame | None
    spark: SparkSession

    def points(self) -> DataFrame:
        """Return the images. ConfigError if the configuration has none."""
        if self.images is None:
            raise ConfigError("images: this method needs them", hint="give images.root")
        return self.images


@dataclass(frozen=True)
class Made:
    """Result of a method: partitions from coarse to fine, and details (`facts`) and warnings for the report."""

    partitions: list[Built]
    facts: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def read_text(spark: SparkSession, uri: str) -> str:
    """Return the text of a file in any store. InputError if it does not exist."""
    files = Files(spark)
    if not files.exists(uri):
        raise InputError("there is no such file", where=uri)
    return files.read_text(uri)


def refuse_empty(name: str, regions: int, images: int, img_min: int) -> None:
    """InputError if the partition `name` has no regions, because no cell has more than `img_min` images."""
    if regions == 0:
        raise InputError(
            f"partition {name}: no cell has more than {img_min} of the {images} images",
            hint="give more images or a smaller img_min",
        )


def nullable(parents: I8) -> pa.Array:
    """Return parents as a column in which OUTSIDE is null."""
    return pa.array(parents, pa.int64(), mask=parents == OUTSIDE)


def with_column(regions: pa.Table, column: str, values: Any) -> pa.Table:
    """Return a `region_table` in which an existing column has new values."""
    at = regions.schema.get_field_index(column)
    return regions.set_column(at, regions.schema.field(at), [values])


def counted_regions(
    names: NDArray[np.str_], shapes: NDArray[np.object_], areas: F8, images: I8, means: pd.DataFrame, parents: I8 | None
) -> pa.Table:
    """Return a `region_table` with the image counts of the regions and the mean positions of their images.

    names, shapes, areas (km²), images (counts) and parents have one entry per region, shape (n,).
    means: frame of `counting.mean_positions`.

    IntegrityError if the counts in `means` differ from `images`: the images have changed between the two passes.
    """
    means = means.drop(index=OUTSIDE, errors="ignore")
    if not (np.array_equal(means.index, np.arange(images.size)) and np.array_equal(means["images"], images)):
        raise IntegrityError(
            f"{int(images.sum())} images were counted, then {int(means['images'].sum())}",
            hint="did the images change meanwhile? nothing was committed",
        )
    lat, lon = lat_lon(means[["x", "y", "z"]].to_numpy(np.float64))
    known = {"wkb": shapely.to_wkb(shapes), "area_km2": areas, "lat": lat, "lon": lon, "n_images": images}
    return region_table(names, **known, **({} if parents is None else {"parent": nullable(parents)}))


def too_small(points: DataFrame, partitions: list[Built], hint: str) -> list[str]:
    """Return a warning for each partition that has cells smaller than the accuracy of GPS.

    The warning lists the cells with the most images and ends with `hint`.
    """
    warnings = []
    for built in partitions:
        regions = built.published.regions
        images = regions["n_images"].to_numpy()
        small = np.flatnonzero((regions["area_km2"].to_numpy() < _LEAST_KM2) & (images > 0))
        if small.size:
            named = small[np.argsort(-images[small], kind="stable")[:_NAMED]]
            positions = counting.distinct_positions(points, built.assigner().assign, named)
            told = "; ".join(
                f"{regions['name'][n]}: {images[n]} images at {positions[n]} different positions"
                for n in named.tolist()
            )
            warnings.append(
                f"partition {built.name}: {small.size} cells are smaller than {_LEAST_KM2 * 1e6:.0f} m², which no "
                f"GPS can tell apart: many images share a position or nearly so ({told}); {hint}"
            )
    return warnings


def coverage(partitions: list[Built], means: list[pd.DataFrame]) -> dict[str, dict[str, int]]:
    """Return, for each partition, how many images are inside and outside of its cells.

    means: the frames of `counting.mean_positions`, one per partition.
    """
    return {
        built.name: {
            "inside": int(mean["images"].drop(index=OUTSIDE, errors="ignore").sum()),
            "outside": int(mean["images"].get(OUTSIDE, 0)),
        }
        for built, mean in zip(partitions, means, strict=True)
    }
