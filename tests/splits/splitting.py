"""Runs `build_splits` as its command line does, on synthetic images with known authors, sequences and classes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from fabricated_rasters import write_raster
from rasterio.transform import from_origin
from workspace import Report, Workspace

CLASSES = {"water": (-180, -60), "urban": (-60, 40), "crops": (40, 90), "trees": (90, 120), "ice": (120, 121)}
"""Class of the synthetic land cover by longitude; beyond 121 degrees east there is none."""


def synthetic_images(n: int, seed: int = 0) -> pd.DataFrame:
    """Columns image_id, lat, lon, author, sequence (both may be empty): towns, poles, the antimeridian, anywhere."""
    rng = np.random.default_rng(seed)
    towns = np.column_stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), rng.uniform(-180, 180, 60)])
    towns[:3] = [[89.9, 0], [-89.95, 100], [10, 180]]
    town = rng.integers(0, 60, n)
    lat = np.clip(towns[town, 0] + rng.normal(0, 0.05, n), -90, 90)
    lon = (towns[town, 1] + rng.normal(0, 0.05, n) * rng.choice([1, 200], n, p=[0.9, 0.1]) + 180) % 360 - 180
    sequence = rng.integers(0, n // 6, n)
    author = sequence % (n // 20)
    author = np.where(rng.random(n) < 0.003, rng.integers(0, n // 20, n), author)  # a few sequences of two authors
    return pd.DataFrame(
        {
            "image_id": [f"i{k:05d}" for k in range(n)],
            "lat": lat,
            "lon": lon,
            "author": np.where(rng.random(n) < 0.1, "", np.char.add("a", author.astype(str))),
            "sequence": np.where(rng.random(n) < 0.2, "", np.char.add("s", sequence.astype(str))),
        }
    )


class Tables(Workspace):
    """Images of several sources, labelled with land cover."""

    def ingest_images(self, images: pd.DataFrame, source: str, run_id: str = "r1", files: int = 1) -> None:
        folder = self.root / f"{source}-{run_id}"
        folder.mkdir()
        for part in range(files):
            images.iloc[part::files].to_csv(folder / f"{part}.csv", index=False, quoting=csv.QUOTE_MINIMAL)
        columns = {name: name for name in images.columns}
        content = {"name": source, "uri": str(folder), "format": "csv", "columns": columns}
        assert self.run("ingest_images", {"source": content}, run_id)[0] == 0

    def label_by_boxes(
        self,
        run_id: str = "r1",
        classes: Iterable[tuple[str, tuple[int, int]]] = tuple(CLASSES.items()),
        **images: Any,
    ) -> dict[str, Any]:
        """The report of labelling with boxes of longitudes, by name."""
        boxes = self.root / "cover.geojson"
        features = [
            {
                "type": "Feature",
                "properties": {"name": name},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[w, -90], [e, -90], [e, 90], [w, 90], [w, -90]]],
                },
            }
            for name, (w, e) in classes
        ]
        boxes.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        cover = {"name": "cover", "kind": "polygons", "uri": str(boxes), "name_column": "name"}
        cover["repeated_names"] = "merge"
        return self._labelled(cover, run_id, **images)

    def label_from_maps(
        self, classes: list[tuple[str, tuple[int, int]]], run_id: str = "r1", **images: Any
    ) -> dict[str, Any]:
        """As `label_by_boxes`, from two raster files that meet at longitude 0: each class is a region of its own."""
        values = np.zeros((2, 360), np.uint8)
        for value, (_, (west, east)) in enumerate(classes, 1):
            values[:, west + 180 : east + 180] = value
        (self.root / "maps").mkdir()
        for name, west in (("west", -180), ("east", 0)):
            half = values[:, west + 180 : west + 360]
            write_raster(self.root / "maps" / f"{name}.tif", half, from_origin(west, 90, 1, 90), nodata=0)
        assert self.catalog("cover", self.root / "maps")[0] == 0
        named = [{"name": name, "values": [value]} for value, (name, _) in enumerate(classes, 1)]
        cover = {"name": "cover", "kind": "classes", "collection": "cover", "classes": named}
        return self._labelled(cover, run_id, **images)

    def _labelled(self, cover: dict[str, Any], run_id: str, **images: Any) -> dict[str, Any]:
        code, report = self.label([cover], run_id, **images)
        assert code == 0, report["error"]
        return report


class Splitting:
    """Splits the images of `tables` and reads back what was written."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def __call__(self, splits: list[dict[str, Any]], *options: str, run_id: str, **config: Any) -> Report:
        root = str(self.tables.tables)
        content = {"name": "test", "seed": 7, "images": {"root": root}, "labels": {"root": root}, **config}
        return self.tables.run("build_splits", {**content, "splits": splits}, run_id, *options)

    def rows(self, run_id: str, table: str = "splits") -> pd.DataFrame:
        leaf = self.tables.tables / table / "split_set=test" / f"run_id={run_id}"
        frame: pd.DataFrame = pq.read_table(leaf, partitioning=None).to_pandas()
        order = ["source", "image_id"] if table == "splits" else ["drawn", "outcome", "partition", "region"]
        return frame.sort_values(order).reset_index(drop=True)
