"""What the methods that make partitions share: their inputs, what they return, counts and warnings."""

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

_LEAST_KM2 = 25e-6  # 5 m each way: what smartphones reach under an open sky (gps.gov: 4.9 m)
_NAMED = 3

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower case, as a column name in SQL")]


@dataclass(frozen=True)
class Inputs:
    """What a method may use. `images` has columns image_id, source, lat, lon, all on the Earth."""

    images: DataFrame | None
    spark: SparkSession

    def points(self) -> DataFrame:
        """The images. ConfigError if none were configured."""
        if self.images is None:
            raise ConfigError("images: this method needs them", hint="give images.root")
        return self.images


@dataclass(frozen=True)
class Made:
    """Partitions, coarse ones first, and what the report says of their making."""

    partitions: list[Built]
    facts: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def read_text(spark: SparkSession, uri: str) -> str:
    files = Files(spark)
    if not files.exists(uri):
        raise InputError("there is no such file", where=uri)
    return files.read_text(uri)


def refuse_empty(name: str, regions: int, images: int, img_min: int) -> None:
    if regions == 0:
        raise InputError(
            f"partition {name}: no cell has more than {img_min} of the {images} images",
            hint="give more images or a smaller img_min",
        )


def nullable(parents: I8) -> pa.Array:
    return pa.array(parents, pa.int64(), mask=parents == OUTSIDE)


def with_column(regions: pa.Table, column: str, values: Any) -> pa.Table:
    at = regions.schema.get_field_index(column)
    return regions.set_column(at, regions.schema.field(at), [values])


def counted_regions(
    names: NDArray[np.str_], shapes: NDArray[np.object_], areas: F8, images: I8, means: pd.DataFrame, parents: I8 | None
) -> pa.Table:
    """Regions with the mean positions of their images; both passes over the images must have counted alike."""
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
    """A warning for each partition with cells that no GPS can tell apart, naming those with the most images."""
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
    return {
        built.name: {
            "inside": int(mean["images"].drop(index=OUTSIDE, errors="ignore").sum()),
            "outside": int(mean["images"].get(OUTSIDE, 0)),
        }
        for built, mean in zip(partitions, means, strict=True)
    }
