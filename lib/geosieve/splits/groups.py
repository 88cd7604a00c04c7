"""Groups of images that must stay in one split: they share an author, a sequence or a file, directly or by a chain."""

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
    """Connected components of the graph with the undirected edges `first[i]`-`other[i]`, each shape (n,).

    Returns all nodes in ascending order, and for each the smallest node of its component.
    """
    nodes, index = np.unique(np.concatenate([first, other]), return_inverse=True)
    start, end = np.split(index, 2)
    graph = coo_array((np.ones(start.size, dtype=bool), (start, end)), shape=(nodes.size, nodes.size))
    _, component = connected_components(graph, directed=False)
    _, least = np.unique(component, return_index=True)
    return nodes, nodes[least][component]


def with_groups(images: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Add the column `group` (bigint): the same for all images that are linked by values of `keys` (columns).

    `group` is null where all keys are null. Equal values link images of different sources too, because the same Flickr
    authors occur in MP-16 and YFCC. Values are compared by 64-bit hashes. A hash collision could merge two groups, but
    never divide one.
    """
    if not keys:
        return images.withColumn("group", F.lit(None).cast("bigint"))
    values = [F.when(F.col(key).isNotNull(), F.xxhash64(F.lit(key), F.col(key))) for key in keys]
    first = F.coalesce(*values)
    if len(keys) == 1:
        return images.withColumn("group", first)
    rows = images.withColumn("group", first)
    links = rows.select("group", F.explode(F.array_compact(F.array(*values))).alias("value")).distinct()
    # `first` serves as the preliminary group. A value that occurs in only one preliminary group merges nothing. Few
    # links remain, because a sequence rarely has two authors. The driver solves them, at 16 bytes per link.
    shared = links.groupBy("value").agg(F.count("*").alias("n")).where("n > 1").select("value")
    found = links.join(shared, "value").toPandas()
    if found.empty:
        return rows
    nodes, roots = component_roots(found["group"].to_numpy(), found["value"].to_numpy())
    table = images.sparkSession.createDataFrame(pd.DataFrame({"group": nodes, "root": roots}))
    return rows.join(table, "group", "left").withColumn("group", F.coalesce("root", "group")).drop("root")
