"""Groups of images that must not part: those that share an author, a sequence or a file, directly or by a chain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]


def component_roots(first: Ints, other: Ints) -> tuple[Ints, Ints]:
    """Nodes linked by the edges `first[i]`-`other[i]`, ascending, and for each the least node that a chain reaches."""
    nodes, index = np.unique(np.concatenate([first, other]), return_inverse=True)
    start, end = np.split(index, 2)
    graph = coo_array((np.ones(start.size, dtype=bool), (start, end)), shape=(nodes.size, nodes.size))
    _, component = connected_components(graph, directed=False)
    _, least = np.unique(component, return_index=True)
    return nodes, nodes[least][component]


def with_groups(images: DataFrame, keys: Sequence[str]) -> DataFrame:
    """`images` with a column `group` (bigint), null where all `keys` (string columns) are null.

    A value counts as the same in every source: Flickr's authors occur in MP-16 and in YFCC alike. Values are told
    apart by 64-bit hashes; a collision would join two groups, never part one.
    """
    if not keys:
        return images.withColumn("group", F.lit(None).cast("bigint"))
    values = [F.when(F.col(key).isNotNull(), F.xxhash64(F.lit(key), F.col(key))) for key in keys]
    first = F.coalesce(*values)
    if len(keys) == 1:
        return images.withColumn("group", first)
    rows = images.withColumn("group", first)
    links = rows.select("group", F.explode(F.array_compact(F.array(*values))).alias("value")).distinct()
    # A value with one first value links nothing (every first value is linked to itself). What remains is little, as
    # a sequence rarely has two authors, and is solved on the driver: 16 bytes a link.
    shared = links.groupBy("value").agg(F.count("*").alias("n")).where("n > 1").select("value")
    found = links.join(shared, "value").toPandas()
    if found.empty:
        return rows
    nodes, roots = component_roots(found["group"].to_numpy(), found["value"].to_numpy())
    table = images.sparkSession.createDataFrame(pd.DataFrame({"group": nodes, "root": roots}))
    return rows.join(table, "group", "left").withColumn("group", F.coalesce("root", "group")).drop("root")
