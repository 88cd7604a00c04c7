"""Method `geoestimation_csv`: partitions into S2 cells from the cell files of GeoEstimation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geosieve.geo import s2
from geosieve.partitions.building import adaptive_s2, cell_files
from geosieve.partitions.building.cells import S2_CELLS, Built
from geosieve.partitions.building.making import Inputs, Made, Name, nullable, read_text, with_column
from geosieve.runtime.config import Config


class File(Config):
    """A file with the cells of one partition."""

    name: Name
    uri: str


class GeoEstimationCsv(Config):
    """Cell files of GeoEstimation (Müller-Budack et al. 2018). Region indices are the class labels of the files."""

    method: Literal["geoestimation_csv"]
    family: list[File] = Field(min_length=1, description="from coarse to fine")
    parents: Literal["containment", "mean"] = Field(
        "containment",
        description="mean: a cell's parent is the coarser cell at its mean position, as in their checkpoints",
    )

    def make(self, inputs: Inputs) -> Made:
        """Read the partitions and find the parents of their cells.

        InputError if a file does not exist or is not as `cell_files.geoestimation_cells` requires.
        """
        made: list[Built] = []
        for file in self.family:
            built = cell_files.geoestimation_cells(read_text(inputs.spark, file.uri), file.name, file.uri)
            made.append(built if not made else self._with_parents(built, made[-1]))
        return Made(made, {})

    def _with_parents(self, built: Built, coarse: Built) -> Built:
        """Return `built` with the parents of its cells in `coarse`, by the rule `parents`."""
        regions = built.published.regions
        if self.parents == "mean":
            parents = coarse.assigner().assign(regions["lat"].to_numpy(), regions["lon"].to_numpy())
        else:
            cells = [adaptive_s2.cells_of(s2.from_tokens(b.published.regions["name"].to_pylist()))
                     for b in (built, coarse)]  # fmt: skip
            parents = cells[0].parents(cells[1])
        definition = {**built.published.definition, "parents": self.parents, "parent": coarse.name}
        return Built.of(built.name, S2_CELLS, definition, with_column(regions, "parent", nullable(parents)))
