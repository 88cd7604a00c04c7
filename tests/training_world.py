"""Photographs in folders and archives with positions, labels and splits, and the training sets made of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fabricated_archives import tar_of, zip_of
from PIL import Image
from pyspark.sql import SparkSession
from workspace import Report, Workspace

from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import IMAGES

SIDE = 40
_ORIENTATION, _DATE, _GPS = 274, 306, 34853  # tags of EXIF


def scene(seed: int, width: int, height: int) -> Image.Image:
    """Smooth colours, different in every corner, so that every turn and mirror image shows."""
    rng = np.random.default_rng(seed)
    corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return corners.resize((width, height), Image.Resampling.BICUBIC)


def photo(seed: int, kind: str = "JPEG") -> bytes:
    """A photograph with EXIF: a GPS position, and one of the eight orientations."""
    exif = Image.Exif()
    exif[_ORIENTATION], exif[_DATE] = 1 + seed % 8, "2020:01:01 00:00:00"
    exif[_GPS] = {1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.2)}
    stream = io.BytesIO()
    scene(seed, 90 + seed % 7, 60 + seed % 5).save(stream, kind, quality=92, exif=exif.tobytes())
    return stream.getvalue()


def plain(seed: int, width: int = 50, height: int = 36) -> bytes:
    """A small JPEG without metadata."""
    stream = io.BytesIO()
    scene(seed, width, height).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files whose headers are good, with the error class of their pixels."""
    png = io.BytesIO()
    scene(0, 30, 20).save(png, "PNG")
    content = png.getvalue()
    damaged = bytearray(content)
    damaged[content.index(b"IDAT") + 6] ^= 0xFF
    long, floats = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (66_000, 2)).save(long, "PNG")
    Image.new("F", (20, 20)).save(floats, "TIFF")
    whole = photo(1)
    return {
        "hostile/truncated.jpg": (whole[: len(whole) * 2 // 3], "truncated"),
        "hostile/damaged.png": (bytes(damaged), "broken_image"),
        "hostile/long.png": (long.getvalue(), "too_long"),
        "hostile/floats.tif": (floats.getvalue(), "unsupported_pixels"),
    }


class TrainingWorld(Workspace):
    """Images of source `photos` in every kind of place."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark = spark
        self.folder = root / "photos"
        self.contents: dict[str, bytes] = {}
        """Bytes of each image, by its id: the path below the folder."""
        self.rows: list[dict[str, Any]] = []
        """Rows of `images`, as `ingest_images` writes them, except for positions and authors."""
        self._write_files()
        self._write_archives()
        rng = np.random.default_rng(5)
        for k, row in enumerate(self.rows):
            row |= {"lat": rng.uniform(-60, 60), "lon": rng.uniform(-170, 170), "author": f"author {k % 9}"}

    def _write_files(self) -> None:
        files = {f"single/{k}.jpg": photo(k) for k in range(24)}
        files |= {f"single/{k}.png": photo(k, "PNG") for k in range(24, 28)}
        files |= {f"single/plain {k}.jpg": plain(k) for k in range(6)}
        files |= {name: content for name, (content, _) in hostile().items()}
        files |= {f"gone/{k}.jpg": photo(100 + k) for k in range(4)}
        for name, content in files.items():
            self.write(name, content)
            self._add(name, name, content, offset=0, length=len(content), compression="none")

    def _write_archives(self) -> None:
        first = {"stored.zip": 200, "deflated.zip": 220, "plain.tar": 240, "packed.tar.gz": 260, "changed.tar.gz": 280}
        for name, seed in first.items():
            members = {f"d/{k}.jpg": photo(seed + k) for k in range(14)}
            if name.endswith(".zip"):
                kind = zipfile.ZIP_DEFLATED if name.startswith("d") else zipfile.ZIP_STORED
                packed = zip_of(members, kind)
                with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                    for entry in archive.infolist():
                        start = entry.header_offset + 30 + len(entry.filename)
                        place = {"offset": start, "length": entry.compress_size}
                        compression = "deflate" if kind else "none"
                        content = members[entry.filename]
                        self._add(name, entry.filename, content, compression=compression, **place)
            else:
                packed = tar_of(members)
                with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                    for entry in archive:
                        start = None if name.endswith("gz") else entry.offset_data
                        compression = "none" if start else "tar.gz"
                        place = {"offset": start, "length": entry.size, "compression": compression}
                        self._add(name, entry.name, members[entry.name], **place)
            self.write(name, gzip.compress(packed) if name.endswith("gz") else packed)

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _add(self, file: str, name: str, content: bytes, **place: Any) -> None:
        member = None if file == name else name
        image_id = name if member is None else f"{file}/{name}"
        uri = f"file:{self.folder / file}"
        self.contents[image_id] = content
        row = dict.fromkeys(IMAGES.spark_schema().names)
        digest = hashlib.sha256(content).hexdigest()
        row |= {"image_id": image_id, "uri": uri, "member": member, "content_sha256": digest, "warnings": [], **place}
        self.rows.append(row)

    def publish(self, rows: list[dict[str, Any]], run_id: str, files: int = 1, source: str = "photos") -> None:
        """Publish `rows` as a run of images."""
        schema = IMAGES.spark_schema()
        listed = [tuple(row[name] for name in schema.names) for row in rows]
        leaf = Leaf(IMAGES, {"source": source})
        publication = Publication(self.spark, str(self.tables), run_id, "{}", "0" * 64, [leaf])
        publication.begin()
        publication.write(IMAGES, self.spark.createDataFrame(listed, schema).repartition(files))
        publication.commit(len(rows), "{}")

    def prepare(self, run_id: str = "r1", *options: str, **changes: Any) -> Report:
        """Run the job."""
        root = {"root": str(self.tables)}
        config: dict[str, Any] = {
            **{"name": "test", "seed": 11, "side": SIDE, "rows_per_file": 30, "ranks": 1},
            "images": {**root, "sources": ["photos"]},
            "labels": {**root, "partitions": ["s2_l3"]},
            "splits": {**root, "name": "halves"},
        }
        for key, value in changes.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        return self.run("prepare_training_set", config, run_id, *options)

    def leaf(self, run_id: str = "r1") -> Path:
        return self.tables / "training_shards" / "training_set=test" / f"run_id={run_id}"

    def files(self, run_id: str = "r1") -> list[dict[str, Any]]:
        """The entries of `_shards.json`."""
        found: list[dict[str, Any]] = json.loads((self.leaf(run_id) / "_shards.json").read_text())["files"]
        return found

    def shards(self, run_id: str = "r1") -> pa.Table:
        """All rows, file by file in the order of `_shards.json`."""
        return pa.concat_tables(pq.ParquetFile(self.leaf(run_id) / file["name"]).read() for file in self.files(run_id))

    def rejects(self, run_id: str = "r1") -> dict[str, str]:
        """Error classes of rejects, by image id."""
        leaf = self.tables / "rejects" / "job=prepare_training_set" / "part=test" / f"run_id={run_id}"
        rows = pq.read_table(leaf, partitioning=None).to_pylist()
        return {row["id"]: row["error_class"] for row in rows}
