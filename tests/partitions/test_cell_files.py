"""Cell files of others: what is read, in whose order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from given_tables import GivenTables
from s2_oracle import degrees, leaf
from s2geometry import S2CellId

from geosieve.partitions.base import Tables
from geosieve.partitions.building.cell_files import geoestimation_cells, quadtree_boxes
from geosieve.partitions.kinds.built import Definition
from geosieve.rasters.candidates import NOTHING
from geosieve.runtime.errors import InputError

HEADER = "class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean"
EXTRA = "num_images,120\nmin_concept_probability,0\n"


def token(lat: float, lon: float, level: int) -> str:
    return str(leaf(lat, lon).parent(level).ToToken())


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
    assert partition.assigner().assign(lat, lon, NOTHING.candidates(lat, lon)).tolist() == [1, 0, 2, -1]
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
        (HEADER + "\n" + ROWS + f"3,{token(48.85, 2.35, 20)},1,48.85,2.35\n", "inside others"),
        (HEADER + "\n" + ROWS + "3,nothing,1,0,0\n", "not the token.*kept as text"),
        (HEADER + "\n" + ROWS + "3,1,1,0,0\n", "'1' is a sixth of the Earth"),
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


DATA = Path(__file__).parents[3] / "shared" / "data"


def row(label: int, cell: str, lat: float, lon: float) -> str:
    return f"{label},{cell},100,{lat},{lon}\n"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        # cells of face 0 begin with a zero: without it they are cells elsewhere
        (
            [row(0, PARIS, 48.9, 2.4), row(1, token(-8.8, -42.7, 6).lstrip("0"), -8.8, -42.7)],
            f"1 of 2 .* class_label 1: cell {token(-8.8, -42.7, 6).lstrip('0')} .* {token(-8.8, -42.7, 6)} holds it",
        ),
        ([row(0, PARIS, 48.9, 2.4), row(1, SYDNEY, 48.9, 2.4)], "class_label 1.*class_label 0 holds it; are rows"),
        ([row(0, PARIS, 2.4, 48.9), row(1, SYDNEY, -33.8, 151.1)], "class_label 0.*longitude are swapped"),
        ([row(0, PARIS, 50.8, 2.4), row(1, SYDNEY, -33.8, 151.1)], "class_label 0.*50.8, 2.4.*not of one partition"),
        ([row(0, PARIS, 48.9, 0.0), row(1, SYDNEY, -33.8, 151.1)], "class_label 0"),
    ],
)
def test_a_mean_position_outside_of_its_cell_is_told_with_its_likely_cause(rows: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        geoestimation_cells(HEADER + "\n" + "".join(rows), "cells", "cells.csv")


def test_tokens_of_a_spreadsheet_are_told() -> None:
    path = DATA / "cases" / "lost_zero.csv"
    if not path.exists():
        pytest.skip("../shared/data is not there")
    with pytest.raises(InputError, match=r"6 of 6 .* cell 779 .* 0779 holds it"):
        geoestimation_cells(path.read_text(), "cells", str(path))


def test_a_mean_of_longitudes_across_180_or_around_a_pole_contradicts_nothing() -> None:
    """Theirs are plain means: of longitudes +180 and -179.9 near 0.05, around a pole anything."""
    fiji, arctic = token(-16.8, -179.95, 8), token(89.9, 30.0, 8)
    rows = row(0, fiji, -16.8, 0.05) + row(1, arctic, 89.9, -120.0)
    assert geoestimation_cells(HEADER + "\n" + rows, "cells", "").published.regions["lon"].to_pylist() == [0.05, -120]
    with pytest.raises(InputError, match="class_label 0"):  # latitudes have no such excuse
        geoestimation_cells(HEADER + "\n" + rows.replace("-16.8", "-19.8"), "cells", "")


@pytest.mark.parametrize("level", [3, 5, 9, 14, 20])
def test_plain_means_of_positions_in_a_cell_are_taken(level: int) -> None:
    rng = np.random.default_rng(level)
    lines = []
    for n, lat0 in enumerate([-84.0, -61.0, -33.0, 0.4, 17.0, 45.2, 70.0, 84.5]):
        cell = S2CellId.FromToken(token(lat0, -165.0 + 45 * n, level))
        first, last = cell.range_min().id(), cell.range_max().id()
        points = [degrees(S2CellId(i | 1).ToLatLng()) for i in rng.integers(first, last, 30, np.uint64).tolist()]
        for few in (points, points[:1]):
            lat, lon = np.mean(few, axis=0)
            lines.append((n, cell.ToToken(), lat, lon))
    for half in (lines[::2], lines[1::2]):
        text = HEADER + "\n" + "".join(row(n, c, round(lat, 5), round(lon, 5)) for n, c, lat, lon in half)
        assert geoestimation_cells(text, "cells", "").published.regions.num_rows == 8


def test_the_published_quadtree_is_read() -> None:
    path = DATA / "cells" / "osv5m_quadtree_10_1000.csv"
    if not path.exists():
        pytest.skip("../shared/data is not there")
    built = quadtree_boxes(path.read_text(), "boxes", str(path))
    regions = built.published.regions
    assert regions.num_rows == 11_399
    lat, lon = regions["lat"].to_numpy(), regions["lon"].to_numpy()
    np.testing.assert_array_equal(built.assigner().assign(lat, lon), np.arange(11_399))  # each mean is in its own box


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
        ("0,0,0,5,5,9,9\n1,5,5,10,10,9,9\n", "1 of 2 .* cluster_id 0: box .*cluster_id 1 holds it; are rows"),
        ("0,0,0,5,5,1,1\n1,0,5,5,10,9,1\n", "cluster_id 1.*longitude are swapped"),
    ],
)
def test_boxes_of_no_quadtree_are_refused(rows: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        quadtree_boxes(BOXES + rows, "boxes", "b.csv")
