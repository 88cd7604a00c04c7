"""The ways to make partitions: each a configuration, which makes them from images, tables or files."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from pyspark.sql import DataFrame, SparkSession

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import OUTSIDE
from geosieve.geo.morton import Box
from geosieve.geo.outlines import areas_km2, lat_lon, merged, unit_vectors
from geosieve.partitions.base import Partition, Published, doubts, region_table
from geosieve.partitions.building import adaptive_s2, cell_files, counting, geocells, quadtree
from geosieve.partitions.building.cell_tree import refine
from geosieve.partitions.building.cells import QUADTREE, S2_CELLS, VORONOI, Built, QuadtreeCells, S2Family, Together
from geosieve.partitions.config import PartitionsConfig
from geosieve.partitions.read import CommittedTables
from geosieve.runtime.config import Config
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


class Member(Config):
    """A partition of a family: cells are split while they hold more than img_max images."""

    name: Name
    img_max: int = Field(ge=1)


class AdaptiveS2(Config):
    """METHODS: PlaNet, GeoEstimation. Class ids in the order of S2 ids; parents are cells of the member before."""

    method: Literal["adaptive_s2"]
    family: list[Member] = Field(min_length=1, description="from coarse to fine")
    img_min: int = Field(50, ge=0, description="cells with as many images or fewer are dropped, at start and end")
    start_level: int = Field(2, ge=1, le=30)
    deepest_level: int = Field(
        30,
        ge=1,
        le=30,
        description="cells are not split further, however full; 20 (80 m²) is as deep as a GPS can tell",
    )

    @field_validator("family")
    @classmethod
    def _coarse_first(cls, family: list[Member]) -> list[Member]:
        if any(b.img_max >= a.img_max for a, b in pairwise(family)):
            raise ValueError("img_max must fall from each member to the next: coarse ones come first")
        return family

    @model_validator(mode="after")
    def _start_above_the_end(self) -> AdaptiveS2:
        if self.start_level > self.deepest_level:
            raise ValueError(f"start_level {self.start_level} is below deepest_level {self.deepest_level}")
        return self

    def make(self, inputs: Inputs) -> Made:
        points = inputs.points()
        finest = self.family[-1].img_max
        start, deepest = self.start_level, self.deepest_level
        histogram = counting.cell_histogram(points, adaptive_s2.leaves, start, deepest, finest)
        refined = [refine(histogram, start, deepest, m.img_max, self.img_min) for m in self.family]
        for member, (cells, _) in zip(self.family, refined, strict=True):
            _refuse_empty(member.name, cells.first.size, int(histogram.images.sum()), self.img_min)
        means = counting.mean_positions(points, S2Family([cells for cells, _ in refined]), len(refined))
        partitions: list[Built] = []
        for number, (member, (cells, images)) in enumerate(zip(self.family, refined, strict=True)):
            ids = adaptive_s2.ids_of(cells)
            parents = cells.parents(refined[number - 1][0]) if number else None
            regions = _regions(s2.tokens(ids), *adaptive_s2.outlines(ids), images, means[number], parents)
            definition = {**self.model_dump(exclude={"family"}), "img_max": member.img_max}
            if number:
                definition["parent"] = self.family[number - 1].name
            partitions.append(Built.of(member.name, S2_CELLS, definition, regions))
        warnings = _too_small(points, partitions, "set build.deepest_level, for instance 20")
        return Made(partitions, {"images": _coverage(partitions, means)}, warnings)


class Bounds(Config):
    """A box of longitude and latitude, degrees."""

    south: float = Field(ge=-90, le=90)
    west: float = Field(ge=-180, le=180)
    north: float = Field(ge=-90, le=90)
    east: float = Field(ge=-180, le=180)


class Quadtree(Config):
    """OSV-5M: boxes with more than img_max images are halved both ways, `depth` times at most."""

    method: Literal["quadtree"]
    name: Name
    depth: int = Field(10, ge=0, le=30)
    img_max: int = Field(1000, ge=1)
    img_min: int = Field(0, ge=0, description="boxes with as many images or fewer are dropped, at start and end")
    bounds: Bounds | None = Field(None, description="the box to divide; that of the images if not given")

    def make(self, inputs: Inputs) -> Made:
        points = inputs.points()
        found = counting.bounds(points)
        images = int(found.pop("images"))
        _refuse_empty(self.name, images, images, 0)
        root = Box(**(self.bounds.model_dump() if self.bounds else found))
        histogram = counting.cell_histogram(points, root.leaves, 0, self.depth, self.img_max)
        cells, counts = refine(histogram, 0, self.depth, self.img_max, self.img_min)
        _refuse_empty(self.name, cells.first.size, images, self.img_min)
        means = counting.mean_positions(points, Together([QuadtreeCells(root, cells)]), 1)
        regions = _regions(quadtree.names_of(cells), *quadtree.outlines(root, cells), counts, means[0], None)
        definition = {**self.model_dump(exclude={"name"}), "bounds": vars(root)}
        built = Built.of(self.name, QUADTREE, definition, regions)
        warnings = _too_small(points, [built], "set a smaller build.depth")
        return Made([built], {"images": _coverage([built], means)}, warnings)


class SearchConfig(Config):
    """Parameters of OPTICS to try, every pair, and how many clusters there must be."""

    min_samples: list[int] = Field([10, 20, 40], min_length=1)
    xi: list[float] = Field([0.01, 0.02, 0.05, 0.1], min_length=1)
    max_eps_km: float = Field(500.0, gt=0)
    fewest: int = Field(2, ge=1)
    most: int = Field(10_000, ge=1)

    def search(self) -> geocells.Search:
        return geocells.Search(tuple(self.min_samples), tuple(self.xi), self.max_eps_km, self.fewest, self.most)


class Clusters(SearchConfig):
    """The second level: clusters inside each geocell. A cell in which none are found is one cluster."""

    name: Name
    min_samples: list[int] = Field([5, 10], min_length=1)
    max_eps_km: float = Field(50.0, gt=0)
    fewest: int = Field(5, ge=1)
    most: int = Field(100, ge=1)


class Geocells(Config):
    """OPTICS and spherical Voronoi cells (Stanford report, PIGEON), on a sample of the images.

    Of millions of images OPTICS sees those `sample` whose hashed ids are least: it compares each with all around it.
    `n_images` counts all of them, by nearest centroid.
    """

    method: Literal["geocells"]
    name: Name
    sample: int = Field(20_000, ge=2)
    seed: int = 0
    search: SearchConfig = Field(default_factory=lambda: SearchConfig.model_validate({}))
    clusters: Clusters | None = None

    def make(self, inputs: Inputs) -> Made:
        points = inputs.points()
        lat, lon = counting.sample(points, self.sample, self.seed)
        _refuse_empty(self.name, lat.size, lat.size, 0)
        cell_lat, cell_lon, trials = geocells.find_cells(lat, lon, self.search.search())
        facts: dict[str, Any] = {"sampled": int(lat.size), "search": trials}
        if cell_lat.size == 0:
            tried = ", ".join(sorted({str(trial["clusters"]) for trial in trials})) or "none"
            raise InputError(
                f"no clustering has {self.search.fewest} to {self.search.most} clusters; found: {tried}",
                hint="try smaller min_samples, other xi, or a larger max_eps_km",
            )
        vectors = unit_vectors(cell_lat, cell_lon)
        pieces = geocells.voronoi(vectors)
        definition = {**self.model_dump(exclude={"name", "clusters"}), "sampled": facts["sampled"]}
        chosen = next(trial for trial in trials if trial.get("chosen"))
        definition["optics"] = {key: chosen[key] for key in ("min_samples", "xi")}
        partitions = [_voronoi(self.name, definition, cell_lat, cell_lon, pieces, None)]
        if self.clusters is not None:
            inner, inner_facts = self._inside(self.clusters, lat, lon, cell_lat, cell_lon, pieces)
            partitions.append(inner)
            facts["cluster_search"] = inner_facts
        means = counting.mean_positions(points, Together([b.assigner() for b in partitions]), len(partitions))
        partitions = [_counted(built, mean) for built, mean in zip(partitions, means, strict=True)]
        warnings = _too_small(points, partitions, "leave out images that have no position of their own")
        return Made(partitions, facts | {"images": _coverage(partitions, means)}, warnings)

    def _inside(
        self, clusters: Clusters, lat: F8, lon: F8, cell_lat: F8, cell_lon: F8, pieces: list[list[F8]]
    ) -> tuple[Built, list[dict[str, Any]]]:
        """The clusters of every geocell, and the tables of their searches with the cell's number."""
        cell = geocells.NearestCentroid(unit_vectors(cell_lat, cell_lon)).assign(unit_vectors(lat, lon))
        found: list[tuple[F8, F8]] = []
        inner, tables = [], []
        for number in range(cell_lat.size):
            inside_lat, inside_lon, trials = geocells.find_cells(
                lat[cell == number], lon[cell == number], clusters.search()
            )
            tables += [{"cell": number, **trial} for trial in trials]
            if inside_lat.size == 0:
                inside_lat, inside_lon = cell_lat[number : number + 1], cell_lon[number : number + 1]
            found.append((inside_lat, inside_lon))
            inner += geocells.voronoi(unit_vectors(inside_lat, inside_lon), pieces[number])
        parents = np.repeat(np.arange(cell_lat.size), [inside.size for inside, _ in found])
        all_lat, all_lon = (np.concatenate(column) for column in zip(*found, strict=True))
        definition = {**clusters.model_dump(exclude={"name"}), "method": self.method, "parent": self.name}
        definition["within"] = {"lat": cell_lat.tolist(), "lon": cell_lon.tolist()}
        return _voronoi(clusters.name, definition, all_lat, all_lon, inner, parents), tables


class Definitions(PartitionsConfig):
    """Partitions by maps or polygons, published with what was fitted on the data: edges of density, outlines."""

    method: Literal["definitions"]

    def make(self, inputs: Inputs) -> Made:
        tables = CommittedTables(inputs.spark, self.rasters.root, self.rasters.run)
        made: list[Built] = []
        partitions: list[Partition] = []
        for definition in self.partitions:
            fitted = definition.fitted(tables)
            partition = fitted.build(tables)
            regions = partition.regions(np.empty(0, np.int64))
            if regions.num_rows == 0:
                raise ConfigError(
                    f"partition {definition.name}: its regions cannot be listed",
                    hint="a whole S2 level needs no building: name it in label_attributes",
                )
            published = Published(definition.kind, partition.digest, fitted.model_dump(mode="json"), regions)
            made.append(Built(definition.name, published))
            partitions.append(partition)
        return Made(made, {}, doubts(partitions))


class File(Config):
    """A partition in a file."""

    name: Name
    uri: str


class GeoEstimationCsv(Config):
    """Cell files of GeoEstimation; region indices are their class labels."""

    method: Literal["geoestimation_csv"]
    family: list[File] = Field(min_length=1, description="from coarse to fine")
    parents: Literal["containment", "mean"] = Field(
        "containment",
        description="mean: the coarser cell that holds the cell's mean position, as their checkpoints use",
    )

    def make(self, inputs: Inputs) -> Made:
        made: list[Built] = []
        for file in self.family:
            built = cell_files.geoestimation_cells(_text(inputs.spark, file.uri), file.name, file.uri)
            made.append(built if not made else self._with_parents(built, made[-1]))
        return Made(made, {})

    def _with_parents(self, built: Built, coarse: Built) -> Built:
        regions = built.published.regions
        if self.parents == "mean":
            parents = coarse.assigner().assign(regions["lat"].to_numpy(), regions["lon"].to_numpy())
        else:
            cells = [adaptive_s2.cells_of(s2.from_tokens(b.published.regions["name"].to_pylist()))
                     for b in (built, coarse)]  # fmt: skip
            parents = cells[0].parents(cells[1])
        definition = {**built.published.definition, "parents": self.parents, "parent": coarse.name}
        return Built.of(built.name, S2_CELLS, definition, _set(regions, "parent", _nullable(parents)))


class QuadtreeCsv(Config):
    """A cell file as OSV-5M's; region indices are its cluster ids."""

    method: Literal["quadtree_csv"]
    name: Name
    uri: str

    def make(self, inputs: Inputs) -> Made:
        return Made([cell_files.quadtree_boxes(_text(inputs.spark, self.uri), self.name, self.uri)], {})


Method = Annotated[
    AdaptiveS2 | Quadtree | Geocells | Definitions | GeoEstimationCsv | QuadtreeCsv, Field(discriminator="method")
]


def _text(spark: SparkSession, uri: str) -> str:
    files = Files(spark)
    if not files.exists(uri):
        raise InputError("there is no such file", where=uri)
    return files.read_text(uri)


def _refuse_empty(name: str, regions: int, images: int, img_min: int) -> None:
    if regions == 0:
        raise InputError(
            f"partition {name}: no cell has more than {img_min} of the {images} images",
            hint="give more images or a smaller img_min",
        )


def _nullable(parents: I8) -> pa.Array:
    return pa.array(parents, pa.int64(), mask=parents == OUTSIDE)


def _set(regions: pa.Table, column: str, values: Any) -> pa.Table:
    at = regions.schema.get_field_index(column)
    return regions.set_column(at, regions.schema.field(at), [values])


def _regions(
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
    return region_table(names, **known, **({} if parents is None else {"parent": _nullable(parents)}))


def _voronoi(
    name: str, definition: dict[str, Any], lat: F8, lon: F8, pieces: list[list[F8]], parents: I8 | None
) -> Built:
    areas = np.array([sum(float(areas_km2(piece[np.newaxis])[0]) for piece in cell) for cell in pieces])
    shapes = np.array([merged(cell) for cell in pieces], dtype=object)
    known = {"wkb": shapely.to_wkb(shapes), "area_km2": areas, "lat": lat, "lon": lon}
    names = np.array([f"{name} {number}" for number in range(lat.size)])
    regions = region_table(names, **known, **({} if parents is None else {"parent": parents}))
    return Built.of(name, VORONOI, definition, regions)


def _counted(built: Built, means: pd.DataFrame) -> Built:
    """With the number of images; a Voronoi cell's position stays its centroid, which decides what belongs to it."""
    regions = built.published.regions
    images = means["images"].reindex(np.arange(regions.num_rows), fill_value=0).to_numpy(np.int64)
    return Built.of(built.name, VORONOI, built.published.definition, _set(regions, "n_images", images))


def _too_small(points: DataFrame, partitions: list[Built], hint: str) -> list[str]:
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


def _coverage(partitions: list[Built], means: list[pd.DataFrame]) -> dict[str, dict[str, int]]:
    return {
        built.name: {
            "inside": int(mean["images"].drop(index=OUTSIDE, errors="ignore").sum()),
            "outside": int(mean["images"].get(OUTSIDE, 0)),
        }
        for built, mean in zip(partitions, means, strict=True)
    }
