"""Simulated predictors for the demo and the benchmarks. They use the true positions; no network sees an image."""

from __future__ import annotations

import numpy as np

from geosieve.geo.arrays import F8, I8
from geosieve.geo.outlines import lat_lon, unit_vectors
from geosieve.geo.sphere import haversine_km
from geosieve.overlay.atoms import Overlay


def cell_predictor(rng: np.random.Generator, overlay: Overlay, partition: str, lat: F8, lon: F8) -> F8:
    """Probabilities of a simulated classifier of cells, shape (images, cells).

    `lat`, `lon`: true positions in degrees, shape (images,). Each image has its own scale from 10 to 3,000 km. The
    guess has a normal error of this scale, and the probabilities decrease exponentially with the distance from it.
    """
    k = overlay.column(partition)
    label, n = overlay.labels[:, k], overlay.partitions[k].n_regions
    inside = label >= 0
    moments = (unit_vectors(overlay.lat, overlay.lon) * overlay.area_km2[:, None])[inside]
    cell_lat, cell_lon = lat_lon(np.stack([np.bincount(label[inside], part, n) for part in moments.T], axis=-1))
    scale = np.exp(rng.uniform(np.log(10), np.log(3000), lat.size))
    p = np.empty((lat.size, n))
    for i in range(lat.size):  # the distances of all images to all cells would not fit into memory
        guess_lat = np.clip(lat[i] + rng.normal(0, scale[i] / 111), -89, 89)
        guess_lon = lon[i] + rng.normal(0, scale[i] / 111) / np.cos(np.radians(guess_lat))
        d = haversine_km(guess_lat, guess_lon, cell_lat, cell_lon)
        p[i] = np.exp(-d / scale[i]) + 1e-9
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def attribute_predictor(rng: np.random.Generator, truth: I8, n: int, accuracy: float = 0.7) -> F8:
    """Probabilities of a simulated classifier of attributes, shape (images, n).

    `truth`: true class of each image, negative if it has none. The classifier answers correctly with probability
    `accuracy`, and otherwise (or without a true class) at random. It gives its answer the probability `accuracy` and
    spreads the rest evenly over all classes.
    """
    known = np.where(truth >= 0, truth, 0)
    right = (rng.random(truth.size) < accuracy) & (truth >= 0)
    said = np.where(right, known, rng.integers(0, n, truth.size))
    p = np.full((truth.size, n), (1 - accuracy) / n)
    p[np.arange(truth.size), said] += accuracy
    return p
