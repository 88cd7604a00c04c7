"""Cell files of others: what is read, in whose order, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import s2sphere
from given_tables import GivenTables

from geosieve.partitions.base import Tables
from geosieve.partitions.building.foreign import geoestimation_cells, quadtree_boxes
from geosieve.partitions.kinds.built import Definition
from geosieve.partitions.nearby import NOTHING
from geosieve.runtime.errors import InputError

HEADER = "class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean"
EXTRA = "num_images,120\nmin_concept_probability,0\n"


def token(lat: float, lon: float, level: int) -> str:
    return str(s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(lat, lon)).parent(level).to_token())


PARIS, SYDNEY, POLE = token(48.85, 2.35, 8), token(-33.87, 151.2, 6), token(90, 0, 30)
ROWS = f"1,{PARIS},70,48.9,2.4\n0,{SYDNEY},30,-33.8,151.1\n2,{POLE},20,90.0,0.0\n"


def test_class_labels_are_the_regions_whatever_the_order_of_rows() -> None:
    built = geoestimation_cells(EXTRA + HEADER + "\n" + ROWS, "cells", "cells.csv")
    assert built.published.regions["name"].to_pylist() == [SYDNEY, PARIS, POLE]
    assert built.published.regions["n_images"].to_pylist() == [30, 70, 20]
    lat, lon = np.array([48.85, -33.87, 90.0, 0.0]), np.array([2.35, 151.2, 17.0, 0.0])
    tables: Tables = GivenTables(built={"cells": built.published})
    definition = Definition(kind="built", name="x", root="r", partition="cells")
    partition = definition.build(tables)
    assert partition.assign(lat, lon, NOTHING.nearby(lat, lon)).tolist() == [1, 0, 2, -1]
    assert (partition.name, partition.n_regions, partition.digest) == ("x", 3, built.published.digest)


def test_a_byte_order_mark_is_not_a_part_of_the_header() -> None:
    built = geoestimation_cells("\ufeff" + HEADER + "\n" + ROWS, "cells", "cells.csv")
    assert built.published.regions["name"].to_pylist() == [SYDNEY, PARIS, POLE]


def test_the_hash_is_of_the_cells_and_their_order() -> None:
    text = EXTRA + HEADER + "\n"
    digest = geoestimation_cells(text + ROWS, "a", "").published.digest
    shuffled = "".join(sorted(ROWS.splitlines(keepends=True)))
    assert geoestimation_cells(HEADER + "\n" + shuffled, "b", "").published.digest == digest
    swapped = ROWS.replace("1,8", "9,8").replace("1," + PARIS, "0," + PARIS).replace("0," + SYDNEY, "1," + SYDNEY)
    assert geoestimation_cells(text + swapped, "a", "").published.digest != digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (EXTRA + ROWS, "is the header"),
        (HEADER + "\n", "no cells"),
        (HEADER.replace("hex_id", "hex") + "\n" + ROWS, "missing columns: hex_id"),
        (HEADER + "\n" + ROWS.replace("2,", "3,", 1).replace("\n2,", "\n3,"), "each once"),
        (HEADER + "\n" + ROWS + f"1,{token(0, 0, 5)},1,0,0\n", "each once"),
        (HEADER + "\n" + ROWS + f"3,{token(48.85, 2.35, 20)},1,0,0\n", "inside others"),
        (HEADER + "\n" + ROWS + "3,nothing,1,0,0\n", "not the token"),
        (HEADER + "\n" + ROWS + f"3,{token(0, 0, 5)},1,151.0,-33.0\n", "latitude, longitude"),
        (HEADER + "\n" + ROWS + f"3,{token(0, 0, 5)},inf,0,0\n", "not a count of images"),
        (HEADER + "\n" + ROWS + f"3,{token(0, 0, 5)},-5,0,0\n", "not a count of images"),
        (HEADER + "\n" + ROWS + f"3,{token(0, 0, 5)},1,0,0,0,0,0\n", "this is no CSV"),
        (HEADER + "\n" + ROWS + f"3,{token(0, 0, 5)},many,0,0\n", "'many' is not a number"),
    ],
)
def test_what_is_no_cell_file_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        geoestimation_cells(text, "cells", "cells.csv")


BOXES = "cluster_id,min_lat,min_lon,max_lat,max_lon,mean_lat,mean_lon\n"


def test_boxes_keep_their_ids_and_edges_belong_to_the_north_east() -> None:
    built = quadtree_boxes(BOXES + "1,0,0,5,5,1,1\n0,5,5,10,10,9,9\n2,0,5,5,10,1,9\n", "boxes", "b.csv")
    lat, lon = np.array([1.0, 9, 1, 9, 5, 10, 11]), np.array([1.0, 9, 9, 1, 5, 10, 5])
    assert built.assigner().assign(lat, lon).tolist() == [1, 0, 2, -1, 0, 0, -1]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("0,0,0,5,5,1,1\n1,5,5,5,10,9,9\n", "no extent"),
        ("0,0,0,10,10,1,1\n1,5,5,10,10,9,9\n", "overlap"),
        ("0,0,0,3,10,1,1\n1,3,0,10,10,9,9\n", "midpoints"),
        ("0,0,0,5,5,1,1\n0,5,5,10,10,9,9\n", "each once"),
    ],
)
def test_boxes_of_no_quadtree_are_refused(rows: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        quadtree_boxes(BOXES + rows, "boxes", "b.csv")
