"""Method `definitions`: publish partitions that are defined by maps or polygons."""

from __future__ import annotations

from typing import Literal

import numpy as np

from geosieve.partitions.base import Partition, Published, doubts
from geosieve.partitions.building.cells import Built
from geosieve.partitions.building.making import Inputs, Made
from geosieve.partitions.config import PartitionsConfig
from geosieve.partitions.read import CommittedTables
from geosieve.runtime.errors import ConfigError


class Definitions(PartitionsConfig):
    """Publish partitions by maps or polygons, with the values derived from the data: bucket edges and outlines."""

    method: Literal["definitions"]

    def make(self, inputs: Inputs) -> Made:
        """Build the partitions. ConfigError if the regions of one cannot be listed, as those of a whole S2 level."""
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
