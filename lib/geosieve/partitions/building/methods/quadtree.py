"""Method `quadtree`: boxes of latitude and longitude that are smaller where there are more images (OSV-5M)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from geosieve.geo.morton import Box
from geosieve.partitions.building import counting, quadtree
from geosieve.partitions.building.cell_tree import refine
from geosieve.partitions.building.cells import QUADTREE, Built, QuadtreeCells, Together
from geosieve.partitions.building.making import Inputs, Made, Name, counted_regions, coverage, refuse_empty, too_small
from geosieve.runtime.config import Config


class Bounds(Config):
    """A box of latitude and longitude, degrees."""

    south: float = Field(ge=-90, le=90)
    west: float = Field(ge=-180, le=180)
    north: float = Field(ge=-90, le=90)
    east: float = Field(ge=-180, le=180)

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.south >= self.north or self.west >= self.east:
            raise ValueError("bounds: south must be less than north, and west less than east")
        return self


class Quadtree(Config):
    """Quadtree as in OSV-5M: a box with more than `img_max` images is split into four, down to level `depth`."""

    method: Literal["quadtree"]
    name: Name
    depth: int = Field(10, ge=0, le=30)
    img_max: int = Field(1000, ge=1)
    img_min: int = Field(
        0, ge=0, description="boxes with this many images or fewer are dropped, before and after splitting"
    )
    bounds: Bounds | None = Field(None, description="the box to divide; by default the bounding box of the images")

    def make(self, inputs: Inputs) -> Made:
        """Build the partition. ConfigError without images; InputError if no image has a position, or no box is left."""
        points = inputs.points()
        found = counting.bounds(points)
        images = int(found.pop("images"))
        refuse_empty(self.name, images, images, 0)
        root = Box(**(self.bounds.model_dump() if self.bounds else found))
        histogram = counting.cell_histogram(points, root.leaves, 0, self.depth, self.img_max)
        cells, counts = refine(histogram, 0, self.depth, self.img_max, self.img_min)
        refuse_empty(self.name, cells.first.size, images, self.img_min)
        means = counting.mean_positions(points, Together([QuadtreeCells(root, cells)]), 1)
        regions = counted_regions(quadtree.names_of(cells), *quadtree.outlines(root, cells), counts, means[0], None)
        definition = {**self.model_dump(exclude={"name"}), "bounds": vars(root)}
        built = Built.of(self.name, QUADTREE, definition, regions)
        warnings = too_small(points, [built], "set a smaller build.depth")
        return Made([built], {"images": coverage([built], means)}, warnings)
