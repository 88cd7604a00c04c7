"""Method `adaptive_s2`: partitions into S2 cells that are smaller where there are more images."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, field_validator, model_validator

from geosieve.geo import s2
from geosieve.partitions.building import adaptive_s2, counting
from geosieve.partitions.building.cell_tree import refine
from geosieve.partitions.building.cells import S2_CELLS, Built, S2Family
from geosieve.partitions.building.making import Inputs, Made, Name, counted_regions, coverage, refuse_empty, too_small
from geosieve.runtime.config import Config


class Member(Config):
    """A partition of a family. Cells with more than `img_max` images are split."""

    name: Name
    img_max: int = Field(ge=1)


class AdaptiveS2(Config):
    """Adaptive S2 partitions after PlaNet (Weyand et al. 2016) and GeoEstimation (Müller-Budack et al. 2018).

    Region indices follow the order of S2 ids. The parent of a cell is the cell of the next coarser member of the family
    that contains it.
    """

    method: Literal["adaptive_s2"]
    family: list[Member] = Field(min_length=1, description="from coarse to fine")
    img_min: int = Field(
        50, ge=0, description="cells with this many images or fewer are dropped, before and after splitting"
    )
    start_level: int = Field(2, ge=1, le=30)
    deepest_level: int = Field(
        30,
        ge=1,
        le=30,
        description="cells of this level are not split, however many images they have; GPS resolves level 20 (80 m²)",
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
            raise ValueError(f"start_level {self.start_level} is deeper than deepest_level {self.deepest_level}")
        return self

    def make(self, inputs: Inputs) -> Made:
        """Build all partitions of the family. ConfigError without images; InputError if a partition has no cells."""
        points = inputs.points()
        finest = self.family[-1].img_max
        start, deepest = self.start_level, self.deepest_level
        histogram = counting.cell_histogram(points, adaptive_s2.leaves, start, deepest, finest)
        refined = [refine(histogram, start, deepest, m.img_max, self.img_min) for m in self.family]
        for member, (cells, _) in zip(self.family, refined, strict=True):
            refuse_empty(member.name, cells.first.size, int(histogram.images.sum()), self.img_min)
        means = counting.mean_positions(points, S2Family([cells for cells, _ in refined]), len(refined))
        partitions: list[Built] = []
        for number, (member, (cells, images)) in enumerate(zip(self.family, refined, strict=True)):
            ids = adaptive_s2.ids_of(cells)
            parents = cells.parents(refined[number - 1][0]) if number else None
            regions = counted_regions(s2.tokens(ids), *adaptive_s2.outlines(ids), images, means[number], parents)
            definition = {**self.model_dump(exclude={"family"}), "img_max": member.img_max}
            if number:
                definition["parent"] = self.family[number - 1].name
            partitions.append(Built.of(member.name, S2_CELLS, definition, regions))
        warnings = too_small(points, partitions, "set build.deepest_level, for instance 20")
        return Made(partitions, {"images": coverage(partitions, means)}, warnings)
