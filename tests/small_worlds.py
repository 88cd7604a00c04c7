"""Synthetic overlays on small grids, and the pixel algorithm of Bianco, Eigen and Gormish written plainly."""

from __future__ import annotations

from functools import reduce

import numpy as np
import shapely
from numpy.typing import NDArray

from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay.atoms import AtomGrid, Overlay, OverlayPartition, row_numbers
from geosieve.overlay.blocks import Bands, Layer, Narrow
from geosieve.overlay.build import exact_areas
from geosieve.overlay.spans import PixelSpans, describe, find_spans, sum_up, unique_rows
from geosieve.partitions.base import Partition
from geosieve.rasters.candidates import NOTHING, CandidateIndex, _extents, every_cell

Maps = list[NDArray[np.int64]]


def random_maps(rng: np.random.Generator, rows: int, regions: list[int], outside: float = 0.0) -> Maps:
    """A map of regions for each partition, (rows, 2 * rows); a share of the pixels is outside (-1) or nodata (-2)."""
    maps = []
    for n in regions:
        small = rng.integers(0, n, (-(-rows // 2), rows))
        layer = np.kron(small, np.ones((2, 2), np.int64))[:rows]
        layer[rng.random(layer.shape) < outside] = rng.choice([-1, -2])
        maps.append(layer)
    return maps


def overlay_of(maps: Maps, regions: list[int]) -> tuple[Overlay, AtomGrid]:
    rows = len(maps[0])
    grid = EqualAngleGrid(rows, 2 * rows)
    runs = find_spans(0, 0, np.stack(maps).astype(np.int32), np.zeros_like(maps[0], dtype=bool))
    labels, facts = sum_up(grid, runs)
    told = describe(grid, facts)
    partitions = tuple(OverlayPartition(f"p{k}", f"hash{k}", n) for k, n in enumerate(regions))
    overlay = Overlay(partitions, labels, *(told[name] for name in ("area_km2", "lat", "lon", "land_share")))
    _, code = unique_rows(np.concatenate([labels, runs.labels]))
    return overlay, AtomGrid.of_runs(grid, runs.row, runs.column, code[len(labels) :], runs.share)


def ensemble_of(overlay: Overlay) -> Ensemble:
    return Ensemble(overlay, tuple(EnsembleMember(f"model{k}", p.name) for k, p in enumerate(overlay.partitions)))


def random_predictions(rng: np.random.Generator, regions: list[int], images: int) -> dict[str, Probabilities]:
    return {
        f"model{k}": Probabilities(f"hash{k}", rng.dirichlet(np.full(n, 0.5), images)) for k, n in enumerate(regions)
    }


def pixel_densities(maps: Maps, probabilities: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Alg. 1 and 2 for one image: the product over partitions of p_j / area(m_j) at every pixel."""
    grid = EqualAngleGrid(*maps[0].shape)
    area = np.repeat(grid.row_areas_km2()[:, None], grid.cols, axis=1)
    product = np.ones(maps[0].shape)
    for layer, p in zip(maps, probabilities, strict=True):
        density = np.zeros(layer.shape)
        for j in range(p.size):
            mask = layer == j
            if mask.any():
                density += p[j] * mask / area[mask].sum()
        product *= density
    return product


def pixel_area(maps: Maps, product: NDArray[np.float64], row: int, column: int) -> float:
    """Alg. 3: area of the pixels at least as dense as the truth's."""
    grid = EqualAngleGrid(*maps[0].shape)
    area = np.repeat(grid.row_areas_km2()[:, None], grid.cols, axis=1)
    at = product[row, column]
    # Products of the same numbers in another order differ in the last digit; different ones differ by far more.
    return float(area[product >= at * (1 - 1e-12)].sum())


def overlay_of_partitions(partitions: list[Partition], arcsec: float) -> tuple[Overlay, AtomGrid]:
    """What `build_overlay` makes of partitions, in one process."""
    grid = EqualAngleGrid.from_arcsec(arcsec)
    every = every_cell()
    layers = []
    for p in partitions:
        shapes = p.outlines()
        pairs = []
        if shapes:
            keys, *bounds = _extents(every, 0.25)
            found = shapely.STRtree(shapely.box(*bounds)).query(
                shapely.from_wkb(list(shapes.values())), predicate="intersects"
            )
            pairs = [keys[found[1]], np.array(list(shapes))[found[0]]]
        index = CandidateIndex.from_pairs(*pairs) if shapes else NOTHING
        layers.append(Layer(p.assigner(), index, narrow=Narrow.of(p, grid)))
    bands = Bands(grid, tuple(layers), None)
    runs = [run for band in range(len(bands)) for run in bands.runs(band)]
    whole = reduce(PixelSpans.together, runs)
    labels, facts = sum_up(grid, whole)
    area, warnings = exact_areas(grid, partitions, labels, facts["area"])
    assert not warnings
    told = describe(grid, facts)
    listed = tuple(OverlayPartition(p.name, p.digest, p.n_regions) for p in partitions)
    overlay = Overlay(listed, labels, area, *(told[name] for name in ("lat", "lon", "land_share")))
    return overlay, AtomGrid.of_runs(grid, whole.row, whole.column, row_numbers(labels, whole.labels), whole.share)
