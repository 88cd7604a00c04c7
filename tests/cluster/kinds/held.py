"""The definition of a held partition."""

from __future__ import annotations

from typing import Literal

from held_partition import HeldPartition

from geosieve.partitions.base import PartitionDefinition, Tables


class Definition(PartitionDefinition):
    kind: Literal["held"]
    uri: str  # the folder of the files; a path, so that it does not enter the partition's hash

    def build(self, tables: Tables) -> HeldPartition:
        return HeldPartition(self.name, self.content_digest({}), self.uri)
