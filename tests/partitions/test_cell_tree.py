"""Cells refined by images: the rules, that they are disjoint, and what does not change them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from s2_oracle import leaf
from s2geometry import S2CellId

from geosieve.geo import s2
from geosieve.geo.codes import OUTSIDE
from geosieve.geo.morton import Box
from geosieve.partitions.building import adaptive_s2, quadtree
from geosieve.partitions.building.cell_tree import DEPTH, Cells, Histogram, refine, sizes
from geosieve.runtime.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data"

latitudes = st.floats(-90, 90) | st.sampled_from([-90.0, 90.0, 0.0, 48.8])
longitudes = st.floats(-180, 180) | st.sampled_from([-180.0, 180.0, 0.0, 2.3])
points = st.lists(st.tuples(latitudes, longitudes), min_size=1, max_size=80)


def arrays(places: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    lat, lon = np.array(places, dtype=float).reshape(-1, 2).T
    return lat, lon


def brute_force(places: list[tuple[float, float]], img_max: int, img_min: int) -> dict[str, int]:
    leaves = [leaf(*place) for place in places]

    def split(cell: S2CellId) -> dict[str, int]:
        held = [image for image in leaves if cell.contains(image)]
        if len(held) <= img_max or cell.level() == 30:
            return {cell.ToToken(): len(held)} if len(held) > img_min else {}
        children = {image.parent(cell.level() + 1) for image in held}
        return {token: n for child in children for token, n in split(child).items()}

    starts = {image.parent(2) for image in leaves}
    starts = {cell for cell in starts if sum(cell.contains(image) for image in leaves) > img_min}
    return {token: n for cell in starts for token, n in split(cell).items()}


@given(points, st.integers(1, 20), st.integers(0, 4))
def test_adaptive_s2_is_the_brute_force_of_s2geometry(
    places: list[tuple[float, float]], img_max: int, img_min: int
) -> None:
    cells, images = refine(Histogram.of(adaptive_s2.leaves(*arrays(places))), 2, 30, img_max, img_min)
    tokens = s2.tokens(adaptive_s2.ids_of(cells)).tolist()
    assert dict(zip(tokens, images.tolist(), strict=True)) == brute_force(places, img_max, img_min)
    ids = [S2CellId.FromToken(token).id() for token in tokens]
    assert ids == sorted(ids)


@given(points, st.integers(1, 20), st.randoms())
def test_order_of_images_changes_nothing_and_cells_are_disjoint(
    places: list[tuple[float, float]], img_max: int, random: object
) -> None:
    cells, images = refine(Histogram.of(adaptive_s2.leaves(*arrays(places))), 2, 30, img_max, 0)
    shuffled = list(places)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again, _ = refine(Histogram.of(adaptive_s2.leaves(*arrays(shuffled))), 2, 30, img_max, 0)
    assert np.array_equal(cells.first, again.first) and np.array_equal(cells.level, again.level)
    assert cells.overlapping().size == 0
    # without a minimum every image is in a cell, and each cell holds what it counted
    region = cells.locate(adaptive_s2.leaves(*arrays(places)))
    assert np.array_equal(np.bincount(region, minlength=images.size), images)


@given(points, st.integers(1, 6))
def test_a_coarser_histogram_that_is_deep_enough_gives_the_same_cells(
    places: list[tuple[float, float]], img_max: int
) -> None:
    leaves = adaptive_s2.leaves(*arrays(places))
    fine, images = refine(Histogram.of(leaves), 2, 30, img_max, 0)
    as_histogram = Histogram(fine.first, images)
    for more in (img_max, img_max + 3):
        expected = refine(Histogram.of(leaves), 2, 30, more, 1)
        found = refine(as_histogram, 2, 30, more, 1)
        assert np.array_equal(found[0].first, expected[0].first) and np.array_equal(found[1], expected[1])


@given(points)
def test_every_fine_cell_has_its_coarse_one(places: list[tuple[float, float]]) -> None:
    """As in the published family: images that share a fine cell share their coarse one."""
    leaves = adaptive_s2.leaves(*arrays(places))
    (fine, _), (coarse, _) = (refine(Histogram.of(leaves), 2, 30, n, 1) for n in (4, 16))
    parents = fine.parents(coarse)
    assert (parents != OUTSIDE).all()
    inside = fine.locate(leaves) != OUTSIDE
    assert np.array_equal(parents[fine.locate(leaves)[inside]], coarse.locate(leaves)[inside])


def test_a_cell_without_a_coarser_one_has_no_parent() -> None:
    paris, sydney = adaptive_s2.leaves(np.array([48.8, -33.8]), np.array([2.3, 151.2]))
    level = np.array([5])
    near, far = (Cells(np.array([leaf & -int(sizes(level)[0])]), level) for leaf in (paris, sydney))
    assert near.parents(far).tolist() == [OUTSIDE] and near.parents(near).tolist() == [0]
    # nor has a cell that contains the coarser one
    wide = Cells(near.first & -int(sizes(level - 2)[0]), level - 2)
    assert wide.parents(near).tolist() == [OUTSIDE] and near.parents(wide).tolist() == [0]


def test_cells_that_overlap_are_refused() -> None:
    inner = S2CellId.FromToken("89c25")
    ids = np.array([inner.id(), inner.parent(5).id()], np.uint64).view(np.int64)
    with pytest.raises(InputError, match="1 cells lie inside others or stand twice: 89c25"):
        adaptive_s2.cells_of(ids)


@given(points, st.integers(1, 10), st.integers(0, 12))
def test_a_quadtree_halves_its_box_at_midpoints(places: list[tuple[float, float]], img_max: int, depth: int) -> None:
    """Against a recursion on the boxes; whole numbers of 1/1024 of the box, so that edges are met."""
    root = Box(-64.0, -128.0, 64.0, 128.0)
    lat, lon = arrays(places)
    lat, lon = np.clip(np.round(lat * 8) / 8, -64, 64), np.clip(np.round(lon * 4) / 4, -128, 128)

    def split(south: float, west: float, north: float, east: float, level: int) -> list[tuple[float, ...]]:
        below, left = (lat < north) | (north == 64), (lon < east) | (east == 128)
        n = int(((lat >= south) & below & (lon >= west) & left).sum())
        if n == 0:
            return []
        if n <= img_max or level == depth:
            return [(south, west, north, east, n)]
        y, x = (south + north) / 2, (west + east) / 2
        quarters = [(south, west, y, x), (south, x, y, east), (y, west, north, x), (y, x, north, east)]
        return [box for quarter in quarters for box in split(*quarter, level + 1)]

    cells, images = refine(Histogram.of(root.leaves(lat, lon)), 0, depth, img_max, 0)
    found = np.column_stack([*root.bounds(cells.first, cells.level), images])
    np.testing.assert_array_equal(found, split(-64, -128, 64, 128, 0))
    again = quadtree.cells_of_names(quadtree.names_of(cells))
    assert np.array_equal(again.first, cells.first) and np.array_equal(again.level, cells.level)


@given(st.lists(st.tuples(st.integers(0, 2**30 - 1), st.integers(0, 2**30 - 1)), min_size=1))
def test_z_order_interleaves_the_bits(pairs: list[tuple[int, int]]) -> None:
    size = 2.0**30
    row, column = np.array(pairs).T
    codes = Box(0.0, 0.0, size, size).leaves(row.astype(float), column.astype(float))
    expected = [int("".join(a + b for a, b in zip(f"{r:030b}", f"{c:030b}", strict=True)), 2) for r, c in pairs]
    assert codes.tolist() == expected
    south, west, _, _ = Box(0.0, 0.0, size, size).bounds(codes, np.full(row.size, DEPTH))
    assert south.tolist() == row.tolist() and west.tolist() == column.tolist()


def test_a_point_outside_the_box_has_no_leaf() -> None:
    box = Box(0.0, 0.0, 10.0, 10.0)
    lat, lon = np.array([-0.1, 10.0, 10.1, 5.0]), np.array([5.0, 10.0, 5.0, -0.1])
    assert (box.leaves(lat, lon) >= 0).tolist() == [False, True, False, False]


class TestPublishedQuadtree:
    cells = DATA / "cells" / "osv5m_quadtree_10_1000.csv"

    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        if not self.cells.exists():
            pytest.skip("../shared/data is not there")

    def test_its_boxes_are_dyadic_and_numbered_along_the_curve(self) -> None:
        published = pd.read_csv(self.cells)
        edges = [published[name].to_numpy() for name in ("min_lat", "min_lon", "max_lat", "max_lon")]
        root, cells = quadtree.cells_of_boxes(*edges)
        assert cells.level.max() == 10 and cells.first.size == 11_399
        assert (np.diff(cells.first) > 0).all() and cells.overlapping().size == 0
        for found, expected in zip(root.bounds(cells.first, cells.level), edges, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        means = root.leaves(published["mean_lat"].to_numpy(), published["mean_lon"].to_numpy())
        assert cells.locate(means).tolist() == published["cluster_id"].tolist()

    def test_boxes_cut_elsewhere_are_refused(self) -> None:
        south, west = np.array([0.0, 0.0]), np.array([0.0, 4.0])  # at a median, say
        with pytest.raises(InputError, match="halves at midpoints"):
            quadtree.cells_of_boxes(south, west, np.array([10.0, 10.0]), np.array([4.0, 10.0]))


class TestPublishedFamily:
    """What the published class ids of YFCC26k say without their cell files: [coarse, middle, fine] an image."""

    @pytest.fixture
    def family(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = DATA / "coords" / "yfcc26k_published_cell_ids.json"
        if not ids.exists():
            pytest.skip("../shared/data is not there")
        published = json.loads(ids.read_text())
        photos = pd.read_csv(DATA / "coords" / "yfcc26k.csv").drop_duplicates("IMG_ID").set_index("IMG_ID")
        photos = photos.loc[[name for name in published if name in photos.index]]
        return np.array([published[name] for name in photos.index]), photos["LAT"].to_numpy(), photos["LON"].to_numpy()

    def test_classes_are_those_of_3298_7202_and_12893_cells(
        self, family: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        classes, _, _ = family
        assert len(classes) > 20_000
        for column, n in enumerate((3298, 7202, 12_893)):
            assert classes[:, column].min() >= 0 and classes[:, column].max() < n

    def test_published_and_our_families_nest_alike(self, family: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        classes, lat, lon = family
        leaves = adaptive_s2.leaves(lat, lon)
        ours = np.column_stack(
            [refine(Histogram.of(leaves), 2, 30, n, 1)[0].locate(leaves) for n in (200, 80, 40)]
        )  # of YFCC26k, a 180th of MP-16
        for labels in (classes, ours[(ours != OUTSIDE).all(axis=1)]):
            for fine, coarse in ((2, 1), (1, 0), (2, 0)):
                pairs = np.unique(labels[:, [fine, coarse]], axis=0)
                assert len(pairs) == np.unique(labels[:, fine]).size  # a fine class lies in one coarse class

    def test_each_published_class_lies_in_an_s2_cell_of_its_own(
        self, family: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        """The smallest S2 cells around the images of each class are disjoint: classes are S2 cells."""
        classes, lat, lon = family
        leaves = adaptive_s2.leaves(lat, lon)
        for column in range(3):
            order = np.lexsort((leaves, classes[:, column]))
            label, leaf = classes[order, column], leaves[order]
            start = np.r_[0, np.flatnonzero(np.diff(label)) + 1]
            first, last = leaf[start], leaf[np.r_[start[1:], leaf.size] - 1]
            # images sorted along the curve: no class has another's image between its own
            by_first = np.argsort(first)
            assert (first[by_first][1:] > last[by_first][:-1]).mean() == 1.0
