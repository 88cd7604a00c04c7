"""Method `quadtree_csv`: a partition into the boxes of a cell file of OSV-5M."""

from __future__ import annotations

from typing import Literal

from geosieve.partitions.building import cell_files
from geosieve.partitions.building.making import Inputs, Made, Name, read_text
from geosieve.runtime.config import Config


class QuadtreeCsv(Config):
    """A cell file in the format of OSV-5M. Region indices are its cluster ids."""

    method: Literal["quadtree_csv"]
    name: Name
    uri: str

    def make(self, inputs: Inputs) -> Made:
        """Read the partition. InputError if the file is missing or not as `cell_files.quadtree_boxes` requires."""
        return Made([cell_files.quadtree_boxes(read_text(inputs.spark, self.uri), self.name, self.uri)], {})
