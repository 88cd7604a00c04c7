"""Regions smaller than a pixel keep their own area, and a point's atom is the one of its own regions."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from s2_oracle import area_km2
from s2geometry import S2CellId
from scipy import integrate
from small_worlds import overlay_of_partitions

from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.ensemble.patches import patches
from geosieve.ensemble.ranking import rank
from geosieve.evaluation.protocols import cap_area_km2
from geosieve.geo import plane, s2
from geosieve.geo.arrays import F8
from geosieve.geo.codes import OUTSIDE
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.outlines import unit_vectors
from geosieve.geo.sphere import cell_area_km2
from geosieve.overlay.blocks import Bands, Layer, Narrow
from geosieve.overlay.build import exact_areas, overlay_digest
from geosieve.overlay.raking import rake
from geosieve.overlay.spans import PixelSpans, sum_up
from geosieve.partitions.base import region_table
from geosieve.partitions.building import adaptive_s2, geocells, quadtree
from geosieve.partitions.building.cell_tree import DEPTH, Cells, Histogram, between, refine, sizes
from geosieve.partitions.building.cells import QuadtreeCells, S2Cells, VoronoiCells
from geosieve.partitions.building.methods.geocells import voronoi_partition
from geosieve.partitions.kinds.built import BuiltPartition
from geosieve.partitions.kinds.polygons import PolygonPartition
from geosieve.partitions.kinds.s2 import S2Partition
from geosieve.rasters.candidates import CandidateIndex
from geosieve.runtime.errors import InputError

EARTH_KM2 = 4 * np.pi * 6371.0088**2


def towns(rng: np.random.Generator, n: int) -> tuple[F8, F8]:
    """Positions as photographs have them: most in a few dense places, some anywhere."""
    lat, lon = rng.uniform(-60, 70, 300), rng.uniform(-180, 180, 300)
    at = (300 * rng.random(n) ** 4).astype(int)
    spread = rng.exponential(0.05, (2, n)) * rng.choice([-1, 1], (2, n))
    return np.clip(lat[at] + spread[0], -89, 89), lon[at] + spread[1]


def adaptive(rng: np.random.Generator, most: int, name: str = "cells", points: int = 60_000) -> BuiltPartition:
    """Adaptive S2 cells of towns: many are smaller than a pixel of 120″ (3.7 km)."""
    cells, _ = refine(Histogram.of(adaptive_s2.leaves(*towns(rng, points))), 2, DEPTH, most, 3)
    return partition_of(cells, name)


def partition_of(cells: Cells, name: str) -> BuiltPartition:
    ids = adaptive_s2.ids_of(cells)
    shapes, areas = adaptive_s2.outlines(ids)
    table = region_table(s2.tokens(ids), wkb=shapely.to_wkb(shapes), area_km2=areas)
    return BuiltPartition(name, name, table, S2Cells(cells))


def polygons(shapes: list[shapely.Geometry], name: str = "shapes") -> PolygonPartition:
    return PolygonPartition(name, tuple(str(k) for k in range(len(shapes))), tuple(shapely.to_wkb(shapes)), name)


def exact_s2_areas(partition: BuiltPartition) -> F8:
    return np.array([area_km2(S2CellId.FromToken(token)) for token in partition.table["name"].to_pylist()])


def test_every_cell_has_its_own_area_however_small() -> None:
    # Of the published fine cells 24 % own no centre of a pixel at 120″. A coarser grid is cheaper.
    rng = np.random.default_rng(0)
    cells = adaptive(rng, 20)
    overlay, _ = overlay_of_partitions([cells], 1200)
    area = cells.areas_km2()
    pixel = (np.radians(1200 / 3600) * 6371.0088) ** 2
    assert (area < pixel).mean() > 0.3  # many are smaller than a pixel
    assert overlay.region_areas_km2[0] == pytest.approx(exact_s2_areas(cells), rel=1e-6)
    assert overlay.area_km2.sum() == pytest.approx(EARTH_KM2, rel=1e-9)
    # Centroids lie in their cells.
    inside = overlay.labels[:, 0] >= 0
    at = cells.assigner().assign(
        overlay.lat[inside], overlay.lon[inside], CandidateIndex.candidates(overlay_index(), *2 * [np.empty(0)])
    )
    assert (at == overlay.labels[inside, 0]).mean() > 0.999


def test_cells_of_real_photographs_have_their_own_areas_at_120_arc_seconds() -> None:
    """A band of the grid over Paris and Vienna; `benchmarks.overlay_rank` looks at all of the Earth."""
    photos = Path(__file__).parents[3] / "shared" / "data" / "coords" / "yfcc26k.csv"
    if not photos.exists():
        pytest.skip("../shared/data is not there")
    lat, lon = pd.read_csv(photos, usecols=["LAT", "LON"]).to_numpy(float).T
    grid = EqualAngleGrid.from_arcsec(120)
    rows_per_band = Bands(grid, (), None).rows_per_band
    number = int(grid.pixels(49.0, 0.0)[0]) // rows_per_band
    south, north = grid.row_edges()[[(number + 1) * rows_per_band, number * rows_per_band]]
    families = []
    for name, most in (("fine", 10), ("coarse", 100)):
        cells, _ = refine(Histogram.of(adaptive_s2.leaves(lat, lon)), 2, DEPTH, most, 0)
        _, low, _, high = shapely.bounds(adaptive_s2.outlines(adaptive_s2.ids_of(cells))[0]).T
        inside = (low >= south) & (high <= north)
        families.append(partition_of(Cells(cells.first[inside], cells.level[inside]), name))
    bands = Bands(grid, tuple(Layer(p.assigner(), narrow=Narrow.of(p, grid)) for p in families), None)
    labels, facts = sum_up(grid, reduce(PixelSpans.together, bands.runs(number)))
    # The rest of the Earth, where none of these cells is, as one atom more.
    labels, area = np.vstack([labels, [[OUTSIDE, OUTSIDE]]]), np.r_[facts["area"], EARTH_KM2 - facts["area"].sum()]
    area, warnings = exact_areas(grid, list(families), labels, area)
    assert warnings == []
    for label, partition in zip(labels.T, families, strict=True):
        sums = np.bincount(label[label >= 0], area[label >= 0], partition.n_regions)
        assert sums == pytest.approx(exact_s2_areas(partition), rel=1e-6)
    pixel = (np.radians(120 / 3600) * 6371.0088) ** 2
    fine = families[0].areas_km2()
    assert fine.size > 900 and (fine < pixel).mean() > 0.3


def overlay_index() -> CandidateIndex:
    return CandidateIndex.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.mark.parametrize("level", [3, 6])
def test_whole_levels_have_their_own_areas(level: int) -> None:
    partition = S2Partition("level", level, "level")
    overlay, _ = overlay_of_partitions([partition], 7200)  # pixels of 222 km; cells of level 6 have 144 km
    exact = np.array([area_km2(S2CellId((2 * k + 1) << (60 - 2 * level))) for k in range(6 * 4**level)])
    assert overlay.region_areas_km2[0] == pytest.approx(exact, rel=1e-6)


def test_two_families_have_the_exact_areas_of_both() -> None:
    # Fine cells inside coarse ones: what the fine ones leave of a coarse one is often smaller than a pixel.
    rng = np.random.default_rng(1)
    coarse, fine = adaptive(rng, 300, "coarse"), adaptive(np.random.default_rng(1), 40, "fine")
    overlay, _ = overlay_of_partitions([coarse, fine], 1800)
    for k, partition in enumerate((coarse, fine)):
        assert overlay.region_areas_km2[k] == pytest.approx(exact_s2_areas(partition), rel=1e-6)
    assert overlay.area_km2.sum() == pytest.approx(EARTH_KM2, rel=1e-9)


def test_quadtree_boxes_and_small_polygons_together() -> None:
    rng = np.random.default_rng(2)
    lat, lon = towns(rng, 20_000)
    lon = (lon + 180) % 360 - 180
    from geosieve.geo.morton import Box

    root = Box(-90.0, -180.0, 90.0, 180.0)
    boxes, _ = refine(Histogram.of(root.leaves(lat, lon)), 0, 16, 100, 3)
    shapes, areas = quadtree.outlines(root, boxes)
    table = region_table(quadtree.names_of(boxes), wkb=shapely.to_wkb(shapes), area_km2=areas)
    trees = BuiltPartition("boxes", "boxes", table, QuadtreeCells(root, boxes))
    # Polygons between the centres of pixels of 0.5°: a speck, a strip, one with a hole, islands, and one below another.
    small = [
        shapely.box(10.30, 50.30, 10.301, 50.301),
        shapely.box(20.05, 10.30, 40.0, 10.31),
        shapely.box(0, 0, 30, 20) - shapely.box(10, 5, 12, 7),
        shapely.MultiPolygon([shapely.box(70.3 + k, -5.01, 70.31 + k, -5.0) for k in range(5)]),
        shapely.box(29, 0, 31, 10),
        shapely.Polygon([(-60, -60), (-50, -60), (-55, 60)]),
    ]
    partition = polygons(small)
    overlay, _ = overlay_of_partitions([trees, partition], 1800)
    south, west, north, east = root.bounds(boxes.first, boxes.level)
    assert overlay.region_areas_km2[0] == pytest.approx(cell_area_km2(south, north, east - west), rel=1e-6)
    expected = [
        cell_area_km2(50.30, 50.301, 0.001),
        cell_area_km2(10.30, 10.31, 19.95),
        # without the strip's part, which stands before it
        cell_area_km2(0, 20, 30) - cell_area_km2(5, 7, 2) - cell_area_km2(10.30, 10.31, 30 - 20.05),
        cell_area_km2(-5.01, -5.0, 0.05),
        cell_area_km2(0, 10, 1),  # the half that the third leaves
    ]
    assert overlay.region_areas_km2[1][:5] == pytest.approx(np.array(expected, float), rel=1e-6)
    # A triangle, by numbers: the integral of R² cos(lat) times its width.
    limits = np.radians([-60, 60])
    total = integrate.quad(lambda x: np.cos(x) * np.radians(10) * (np.radians(60) - x) / np.radians(120), *limits)[0]
    assert overlay.region_areas_km2[1][5] == pytest.approx(6371.0088**2 * total, rel=1e-6)


def test_geocells_have_the_areas_of_scipys_voronoi_cells() -> None:
    from scipy.spatial import SphericalVoronoi

    rng = np.random.default_rng(3)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), rng.uniform(-180, 180, 60)
    lat, lon = np.r_[lat, 45 + rng.normal(0, 0.3, 20)], np.r_[lon, 7 + rng.normal(0, 0.3, 20)]  # some are small
    vectors = unit_vectors(lat, lon)
    built = voronoi_partition("geocells", {"method": "geocells"}, lat, lon, geocells.voronoi(vectors), None)
    partition = BuiltPartition("geocells", "h", built.published.regions, built.assigner())
    assert isinstance(partition.cells, VoronoiCells)
    overlay, _ = overlay_of_partitions([partition], 7200)
    expected = SphericalVoronoi(vectors).calculate_areas() * 6371.0088**2
    assert overlay.region_areas_km2[0] == pytest.approx(expected, rel=1e-6)


def test_a_point_is_in_the_atom_of_its_own_regions() -> None:
    rng = np.random.default_rng(4)
    cells = adaptive(rng, 60, points=30_000)
    level = S2Partition("level", 5, "level")
    overlay, _ = overlay_of_partitions([cells, level], 1800)
    lat, lon = towns(np.random.default_rng(4), 20_000)
    nowhere = overlay_index().candidates(lat, lon)
    regions = np.column_stack([p.assigner().assign(lat, lon, nowhere) for p in (cells, level)])
    atoms, unseen = overlay.atoms_of(regions)
    same = (overlay.labels[atoms] == regions).all(axis=1)
    assert unseen == (~same).sum() < 20
    # What the grid never saw stays in its cell.
    finest = np.where(regions[:, :1] >= 0, overlay.labels[atoms] == regions, True)[:, int(cells.n_regions < 6 * 4**5)]
    assert finest[~same].all()


def test_an_unseen_combination_goes_to_the_best_atom_of_its_cell() -> None:
    from geosieve.overlay.atoms import Overlay, OverlayPartition

    partitions = (OverlayPartition("few", "a", 3), OverlayPartition("cells", "b", 5), OverlayPartition("c", "d", 3))
    labels = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 2], [2, 1, 0], [1, -1, 1]])
    none = np.zeros(5)
    overlay = Overlay(partitions, labels, np.array([1.0, 3.0, 9.0, 1.0, 1.0]), none, none, none)
    asked = [
        [1, 0, 2],  # an atom's own
        [1, 0, 1],  # cell 0: atoms 1 and 2 agree in one other partition; 2 is larger
        [2, 0, 1],  # only atom 1 agrees in another
        [2, 0, 5 - 5],  # only atom 0 does
        [2, 4, 1],  # cell 4 has no atom: the partition with next most regions decides, of equals the first
        [-1, -1, 1],  # outside of the cells
    ]
    atoms, unseen = overlay.atoms_of(asked)
    assert atoms.tolist() == [2, 2, 1, 0, 3, 4]
    assert unseen == 5
    with pytest.raises(Exception, match="has 5 regions"):
        overlay.atoms_of([[0, 5, 0]])


def test_a_sure_predictor_reaches_small_cells_as_well_as_others() -> None:
    # Recall within the area of a cap of 25 km, of the true cell with 0.9: 6 % in cells without a pixel, once.
    rng = np.random.default_rng(5)
    cells = adaptive(rng, 30, points=30_000)
    overlay, _ = overlay_of_partitions([cells], 1200)
    lat, lon = towns(np.random.default_rng(5), 2000)
    label = cells.assigner().assign(lat, lon, overlay_index().candidates(lat, lon))
    label = label[label >= 0]
    p = np.full((label.size, cells.n_regions), 0.1 / cells.n_regions)
    p[np.arange(label.size), label] += 0.9
    atoms, unseen = overlay.atoms_of(label[:, None])
    reached = Ensemble(overlay, (EnsembleMember("m", "cells"),)).area_to_truth_km2(
        {"m": Probabilities("cells", p)}, atoms
    )
    small = cells.areas_km2()[label] < 100
    assert unseen == 0 and small.sum() > 200
    assert (reached[small] <= cap_area_km2(25)).all()


@pytest.mark.parametrize("seed", range(3))
def test_areas_in_longitude_and_latitude_are_those_of_a_sphere(seed: int) -> None:
    # pyproj has geodesic edges: cut short, both are the same.
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
    centre, size = rng.uniform(-60, 60, 2), 10 ** rng.uniform(-4, 1)
    shape = shapely.Polygon(
        centre + size * rng.uniform(0.3, 1, (12, 1)) * np.column_stack([np.cos(angle), np.sin(angle)])
    )
    dense = shapely.segmentize(shape, size / 500)
    geod = Geod(a=6371008.8, b=6371008.8)
    expected = abs(geod.geometry_area_perimeter(dense)[0]) / 1e6
    assert plane.areas_km2(np.array([shape], dtype=object))[0] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    of, lat, lon, share = plane.points_inside(np.array([shape], dtype=object), 0.1)
    assert shapely.intersects_xy(shape, lon, lat).all() and share.sum() == pytest.approx(1) and (of == 0).all()


def test_holes_fill_the_tree() -> None:
    cells, _ = refine(Histogram.of(adaptive_s2.leaves(*towns(np.random.default_rng(6), 5000))), 2, DEPTH, 20, 1)
    holes = between(cells, 6 << 2 * DEPTH)
    whole = Cells(np.concatenate([cells.first, holes.first]), np.concatenate([cells.level, holes.level]))
    order = np.argsort(whole.first)
    first, size = whole.first[order], sizes(whole.level[order])
    assert first[0] == 0 and np.array_equal(first[1:], (first + size)[:-1]) and first[-1] + size[-1] == 6 << 60
    assert (first % size == 0).all()
    assert (cells.locate(holes.first) == OUTSIDE).all()


def test_raking_keeps_the_margins_of_nested_groups() -> None:
    # Cells that fill their parent but for a hundred thousandth: proportional fitting alone takes for ever.
    rng = np.random.default_rng(7)
    parent = np.repeat(np.arange(50), 11)
    child = np.where(np.arange(550) % 11 == 10, 550, np.arange(550))
    true = np.where(child == 550, 0.01, 1000.0) * rng.lognormal(0, 1, 550)
    groups = [parent, np.unique(child, return_inverse=True)[1]]
    targets = [np.bincount(g, true) for g in groups]
    found, errors = rake(true * rng.uniform(0.5, 2, 550), groups, targets)
    assert max(e.max() for e in errors) < 1e-9
    assert found[child == 550] == pytest.approx(true[child == 550], rel=1e-3)


def test_contradicting_areas_are_told() -> None:
    groups, targets = [np.array([0, 1]), np.array([0, 1])], [np.array([1.0, 2.0]), np.array([2.0, 1.0])]
    assert max(e.max() for e in rake(np.ones(2), groups, targets)[1]) > 0.1


def test_an_overlays_hash_is_what_decides_its_atoms() -> None:
    grid = EqualAngleGrid.from_arcsec(7200)
    a, b = S2Partition("a", 3, "hash a"), S2Partition("b", 4, "hash b")
    whole = overlay_digest(grid, [a, b], None, {})
    assert whole == overlay_digest(grid, [replace(a, name="renamed"), b], None, {"b": 1})
    others = [
        overlay_digest(grid, [b, a], None, {}),
        overlay_digest(grid, [a], None, {}),
        overlay_digest(grid, [a, b], a, {}),
        overlay_digest(grid, [a, b], None, {"b": 2}),
        overlay_digest(EqualAngleGrid.from_arcsec(3600), [a, b], None, {}),
    ]
    assert len({whole, *others}) == 6


def test_patches_of_mixed_pixels_have_the_atoms_own_areas() -> None:
    cells = adaptive(np.random.default_rng(8), 100, points=10_000)
    overlay, grid = overlay_of_partitions([cells], 3600)
    rng = np.random.default_rng(0)
    p = {"m": Probabilities("cells", rng.dirichlet(np.ones(cells.n_regions), 1))}
    (ranking,) = rank(Ensemble(overlay, (EnsembleMember("m", "cells"),)), p)
    found = patches(ranking, grid, 0, 50)
    assert found.area_km2.sum() == pytest.approx(ranking.area_km2[0, :50].sum())
    assert found.probability.sum() == pytest.approx(ranking.probability[0, :50].sum())
    assert (grid.share < 1).any()
    pixel = np.bincount(grid.starts, grid.share)
    assert pixel[pixel > 0] == pytest.approx(1)  # shares of every mixed pixel
    with pytest.raises(InputError, match="the pixels are of overlay"):
        patches(ranking, replace(grid, digest="another"), 0, 50)


def test_a_region_of_a_map_that_no_pixel_has_is_told() -> None:
    class Map:
        name, n_regions = "land_cover", 3

        def areas_km2(self) -> None:
            return None

        def regions(self, observed: NDArray[np.int64]) -> pa.Table:
            return region_table(["crops", "town", "sea"])

    partition: Any = Map()
    grid = EqualAngleGrid(2, 4)
    _, (warning,) = exact_areas(grid, [partition], np.array([[0], [2]]), np.array([1.0, 2.0]))
    assert "land_cover: no pixel of the grid has region 1 (town)" in warning
