"""Method `geocells`: spherical Voronoi cells of the centroids of image clusters (PIGEON)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import shapely
from pydantic import Field

from geosieve.geo.arrays import F8, I8
from geosieve.geo.outlines import areas_km2, merged, unit_vectors
from geosieve.partitions.base import region_table
from geosieve.partitions.building import counting, geocells
from geosieve.partitions.building.cells import VORONOI, Built, Together
from geosieve.partitions.building.making import Inputs, Made, Name, coverage, refuse_empty, too_small, with_column
from geosieve.runtime.config import Config
from geosieve.runtime.errors import InputError


class SearchConfig(Config):
    """OPTICS parameters to try (every pair of `min_samples` and `xi`), and limits of the number of clusters."""

    min_samples: list[int] = Field([10, 20, 40], min_length=1)
    xi: list[float] = Field([0.01, 0.02, 0.05, 0.1], min_length=1)
    max_eps_km: float = Field(500.0, gt=0)
    fewest: int = Field(2, ge=1)
    most: int = Field(10_000, ge=1)

    def search(self) -> geocells.Search:
        """Return the parameters for `geocells.find_cells`."""
        return geocells.Search(tuple(self.min_samples), tuple(self.xi), self.max_eps_km, self.fewest, self.most)


class Clusters(SearchConfig):
    """Second level: clusters inside each geocell. A geocell without an accepted clustering becomes one cluster."""

    name: Name
    min_samples: list[int] = Field([5, 10], min_length=1)
    max_eps_km: float = Field(50.0, gt=0)
    fewest: int = Field(5, ge=1)
    most: int = Field(100, ge=1)


class Geocells(Config):
    """OPTICS clusters and their spherical Voronoi cells, after the Stanford report and PIGEON (Haas et al. 2023).

    OPTICS compares each image with all images around it, which takes too long for millions of images. Clusters are
    therefore found on a random sample of `sample` images. `n_images` counts all images by their nearest centroid.
    """

    method: Literal["geocells"]
    name: Name
    sample: int = Field(20_000, ge=2)
    seed: int = 0
    search: SearchConfig = Field(default_factory=lambda: SearchConfig.model_validate({}))
    clusters: Clusters | None = None

    def make(self, inputs: Inputs) -> Made:
        """Build the geocells and, if configured, the clusters inside them.

        ConfigError without images. InputError if no image has a position, or if no clustering has an accepted number of
        clusters.
        """
        points = inputs.points()
        lat, lon = counting.sample(points, self.sample, self.seed)
        refuse_empty(self.name, lat.size, lat.size, 0)
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
        partitions = [voronoi_partition(self.name, definition, cell_lat, cell_lon, pieces, None)]
        if self.clusters is not None:
            inner, inner_facts = self._inside(self.clusters, lat, lon, cell_lat, cell_lon, pieces)
            partitions.append(inner)
            facts["cluster_search"] = inner_facts
        means = counting.mean_positions(points, Together([b.assigner() for b in partitions]), len(partitions))
        partitions = [_counted(built, mean) for built, mean in zip(partitions, means, strict=True)]
        warnings = too_small(points, partitions, "leave out images that have no position of their own")
        return Made(partitions, facts | {"images": coverage(partitions, means)}, warnings)

    def _inside(
        self, clusters: Clusters, lat: F8, lon: F8, cell_lat: F8, cell_lon: F8, pieces: list[list[F8]]
    ) -> tuple[Built, list[dict[str, Any]]]:
        """Return the partition into clusters inside geocells, and the trials of all searches with their geocell.

        lat, lon: the sampled images; cell_lat, cell_lon: the centroids of the geocells; both in degrees.
        pieces: the convex pieces of each geocell.
        """
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
        return voronoi_partition(clusters.name, definition, all_lat, all_lon, inner, parents), tables


def voronoi_partition(
    name: str, definition: dict[str, Any], lat: F8, lon: F8, pieces: list[list[F8]], parents: I8 | None
) -> Built:
    """Return the partition `name` into Voronoi cells.

    definition: the definition to publish.
    lat, lon: the centroids, degrees, shape (n,).
    pieces: the convex pieces of each cell, as from `geocells.voronoi`.
    parents: the coarser cell that contains each cell, shape (n,), or None.
    """
    areas = np.array([sum(float(areas_km2(piece[np.newaxis])[0]) for piece in cell) for cell in pieces])
    shapes = np.array([merged(cell) for cell in pieces], dtype=object)
    known = {"wkb": shapely.to_wkb(shapes), "area_km2": areas, "lat": lat, "lon": lon}
    names = np.array([f"{name} {number}" for number in range(lat.size)])
    regions = region_table(names, **known, **({} if parents is None else {"parent": parents}))
    return Built.of(name, VORONOI, definition, regions)


def _counted(built: Built, means: pd.DataFrame) -> Built:
    """Add the number of images. The position of a Voronoi cell stays its centroid, because the centroid defines it."""
    regions = built.published.regions
    images = means["images"].reindex(np.arange(regions.num_rows), fill_value=0).to_numpy(np.int64)
    return Built.of(built.name, VORONOI, built.published.definition, with_column(regions, "n_images", images))
