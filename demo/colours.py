"""A predictor that sees colours only: logistic regression on how a picture's colours are spread. For the demo.

It shows how a class of somebody else takes part in `geolocate_archive`; nobody should look for places with it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression

_GRID = 6
_FLOOR = 1e-4
"""Probability of a region that no scene was in, before all are normalised."""

F8 = NDArray[np.float64]


def features(picture: NDArray[np.uint8]) -> F8:
    """Means and deviations of red, green and blue in a grid of 6 × 6 fields, in [0, 1], (216,)."""
    small = np.asarray(Image.fromarray(picture).resize((8 * _GRID, 8 * _GRID), Image.Resampling.BOX)) / 255
    fields = small.reshape(_GRID, 8, _GRID, 8, 3)
    return np.concatenate([fields.mean(axis=(1, 3)).ravel(), fields.std(axis=(1, 3)).ravel()])


def fit(pictures: Sequence[NDArray[np.uint8]], labels: NDArray[np.int64], path: Path) -> None:
    """Learn the region of each picture and write the weights, as arrays without pickle. Labels below 0 are left out."""
    known = labels >= 0
    x = np.stack([features(picture) for picture, of in zip(pictures, known, strict=True) if of])
    model = LogisticRegression(C=0.1, max_iter=2_000).fit(x, labels[known])
    weights, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn tells two classes by one row
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    np.savez(path, weights=weights, bias=bias, regions=model.classes_)


class ColourPredictor:
    """The predictor in a file of `fit`, for a partition with this hash and number of regions."""

    def __init__(self, path: str, partition: str, digest: str, regions: int) -> None:
        content = Path(path).read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as given:
            self._weights, self._bias, self._known = (given[name] for name in ("weights", "bias", "regions"))
        self._partition, self._regions = partition, regions
        self.partitions = {partition: digest}
        self.digest = hashlib.sha256(content).hexdigest()
        self.side = 8 * _GRID

    def log_probabilities(self, images: Sequence[NDArray[np.uint8]]) -> Mapping[str, F8]:
        """As an ImagePredictor does."""
        scores = np.stack([features(image) for image in images]) @ self._weights.T + self._bias
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        every = np.full((len(images), self._regions), _FLOOR)
        every[:, self._known] += p / p.sum(axis=1, keepdims=True)
        return {self._partition: np.log(every / every.sum(axis=1, keepdims=True))}
