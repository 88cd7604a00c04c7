"""The tables of this project: the contract between jobs. `python -m geosieve.tables.schemas` prints docs/tables.md."""

from __future__ import annotations

import sys

from geosieve.tables.schema import BBOX, Column, Table

IMAGES = Table(
    "images",
    "One row an image. Written by `ingest_images`. An id occurs once a run.",
    (
        Column("image_id", "string", "the source's id of the image"),
        Column("uri", "string", "where the image is, if known", nullable=True),
        Column("lat", "double", "WGS-84 latitude, degrees", nullable=True),
        Column("lon", "double", "WGS-84 longitude, degrees, in [-180, 180]", nullable=True),
        Column(
            "captured_at",
            "timestamp",
            "when it was taken, UTC where the source knows its zone",
            nullable=True,
        ),
        Column(
            "author",
            "string",
            "author or uploader as the source names them; splits keep them apart",
            nullable=True,
        ),
        Column(
            "sequence",
            "string",
            "sequence or album of which it is part; splits keep them apart",
            nullable=True,
        ),
        Column("width", "int", "pixels, after orientation", nullable=True),
        Column("height", "int", "pixels, after orientation", nullable=True),
        Column("orientation", "int", "EXIF orientation, 1-8", nullable=True),
        Column("licence", "string", "licence as the source states it", nullable=True),
        Column(
            "content_sha256",
            "string",
            "SHA-256 of the file's bytes, hex, where they were read",
            nullable=True,
        ),
        Column("warnings", "array<struct<code:string,message:string>>", "doubts that did not refuse the row"),
    ),
    (Column("source", "string", "name of the source"),),
)

REJECTS = Table(
    "rejects",
    "One row an input that failed, whatever the job. Rows in = rows out + rejects, in every run.",
    (
        Column("id", "string", "the input's id, as far as it has one", nullable=True),
        Column("uri", "string", "the file it came from", nullable=True),
        Column("stage", "string", "the step that refused it"),
        Column("error_class", "string", "why, as a fixed word to group by"),
        Column("message", "string", "why, in words; at most 500 characters"),
    ),
    (
        Column("job", "string", "the job that refused it"),
        Column("part", "string", "source, collection, or `all`"),
    ),
)

RASTER_CATALOG = Table(
    "raster_catalog",
    "One row a raster file (band). Written by `catalog_rasters`.",
    (
        Column("uri", "string", "where the file is"),
        Column("band", "int", "band to read, from 1"),
        Column("priority", "int", "where files overlap, the lowest number with a valid value wins; then by URI"),
        Column("driver", "string", "GDAL's name of the format"),
        Column("crs_wkt", "string", "coordinate reference system, WKT"),
        Column(
            "transform",
            "struct<a:double,b:double,c:double,d:double,e:double,f:double>",
            "affine: x = a·col + b·row + c, y = d·col + e·row + f",
        ),
        Column("width", "int", "pixels"),
        Column("height", "int", "pixels"),
        Column("bands", "int", "number of bands in the file"),
        Column("dtype", "string", "pixel type"),
        Column("scale", "double", "value in units = scale · stored value + offset; 1 where the file says nothing"),
        Column("offset", "double", "likewise; 0 where the file says nothing"),
        Column(
            "nodata", "double", "stored value that means no data; NaN is one; null where a mask decides", nullable=True
        ),
        Column("mask", "string", "what tells valid pixels besides: `none`, `mask` (mask band) or `alpha`"),
        Column("block_height", "int", "rows of a block"),
        Column("block_width", "int", "columns of a block"),
        Column("value_min", "double", "least valid value in units, if statistics were asked for", nullable=True),
        Column("value_max", "double", "greatest valid value, likewise", nullable=True),
        Column("positive_min", "double", "least valid value above 0, likewise", nullable=True),
        Column(
            "header_sha256",
            "string",
            "checksum by which a file that changed is noticed: header, place of its blocks, length and time (S3: ETag)",
        ),
        Column(
            "content_sha256",
            "string",
            "checksum of type, size and every pixel's value and validity, whatever the file's format, tiling and "
            "compression; with `checksum: sampled`, of 16 blocks of them",
        ),
        Column("is_global", "boolean", "covers every longitude and latitude"),
        Column("footprint", "geometry", "WGS-84 outline (lon, lat) that holds every pixel, cut at ±180; may be larger"),
        BBOX,
    ),
    (Column("collection", "string", "files that make up one map"),),
)

PARTITIONS = Table(
    "partitions",
    "One row a partition that a run made or used. Its hash covers definition, merges, edges and data: polygons as they "
    "are, rasters by their headers and block layout, built ones by their cells. Written by `build_partitions`, "
    "`label_attributes` and `build_overlay`.",
    (
        Column("partition", "string", "name"),
        Column("partition_hash", "string", "SHA-256 of definition and data, hex"),
        Column("kind", "string", "classes, density, s2, polygons, built; of a built one: s2_cells, quadtree, voronoi"),
        Column("n_regions", "bigint", "number of regions that it can tell apart"),
        Column("definition", "string", "the definition, JSON"),
    ),
    (Column("job", "string", "the job that used or built it; `build_overlay_<name>` of an overlay"),),
)

REGIONS = Table(
    "regions_of_partition",
    "One row a region of a partition; of an S2 level, the cells in which an image fell. "
    "Written by `build_partitions`, `label_attributes` and `build_overlay`.",
    (
        Column("partition", "string", "name of the partition"),
        Column("partition_hash", "string", "its hash"),
        Column("region", "bigint", "index, from 0"),
        Column("name", "string", "name of the region; an S2 cell's token, a quadtree box's quadkey"),
        Column("parent", "bigint", "region of the next coarser partition of its family that holds it", nullable=True),
        Column("area_km2", "double", "area on the sphere of radius 6371.0088 km", nullable=True),
        Column("lat", "double", "latitude of the mean position of its images on the sphere, degrees", nullable=True),
        Column("lon", "double", "longitude of it, degrees, in [-180, 180]", nullable=True),
        Column("n_images", "bigint", "images from which it was made", nullable=True),
        Column("geometry", "geometry", "outline (lon, lat), where the region is a polygon", nullable=True),
        BBOX,
    ),
    (Column("job", "string", "the job that used or built the partition, as in `partitions`"),),
)

LABELS = Table(
    "labels",
    "One row an image and one bigint column a partition (named like the partition): the index of the region "
    "that holds the image, or -1 outside of the map, -2 no data there, -3 a value that the partition does not name. "
    "Names of regions: join `regions_of_partition` on partition and region. Written by `label_attributes`.",
    (
        Column("image_id", "string", "the image"),
        Column("source", "string", "its source"),
        Column("lat", "double", "WGS-84 latitude, degrees"),
        Column("lon", "double", "WGS-84 longitude, degrees"),
        Column("s2_id", "bigint", "leaf S2 cell (level 30), signed; rows are sorted by it inside a file"),
    ),
)

OVERLAY_ATOMS = Table(
    "overlay_atoms",
    "One row an atom of an overlay, the common refinement of partitions on an equal-angle grid: what has the same "
    "region in each of them. One bigint column a partition (named like it) holds the region, or -1, -2, -3 as in "
    "`labels`. Every region of S2 cells, quadtrees, geocells and polygons has atoms, and they sum to its exact area; "
    "regions of maps are those of pixels. Written by `build_overlay`; `_report.json` beside it names the partitions' "
    "hashes.",
    (
        Column("atom", "bigint", "index, from 0, in the order of the partitions' columns"),
        Column("overlay_hash", "string", "hash of the overlay, without which an atom's index means nothing"),
        Column("grid_rows", "int", "rows of the overlay's grid, which has twice as many columns"),
        Column("pixels", "bigint", "pixels of the grid that belong to it or have a part of it"),
        Column("area_km2", "double", "area on the sphere of radius 6371.0088 km"),
        Column("lat", "double", "latitude of the centroid on the sphere, degrees"),
        Column("lon", "double", "longitude of the centroid, degrees"),
        Column("south", "double", "bounding box of its pixels, degrees"),
        Column("west", "double", "bounding box; greater than east where the box crosses ±180"),
        Column("north", "double", "bounding box"),
        Column("east", "double", "bounding box"),
        Column("land_share", "double", "share of the area that is land, where a map of land was named", nullable=True),
    ),
    (Column("overlay", "string", "name of the overlay"),),
)

OVERLAY_RUNS = Table(
    "overlay_runs",
    "The grid of an overlay: one row a run of pixels of one atom along a row, or a part of a mixed pixel, which "
    "several atoms share: `length` 1 and `share` below 1. Shares of a pixel sum to 1; they are estimates, areas are "
    "those of `overlay_atoms`. For maps: which atom a point is in, its own regions tell.",
    (
        Column("row", "int", "row of the grid, 0 at the north pole"),
        Column("column", "int", "first column, 0 east of -180"),
        Column("length", "int", "pixels"),
        Column("share", "double", "share of the pixels' area"),
        Column("land", "boolean", "whether they are land, where a map of land was named", nullable=True),
        Column("atom", "bigint", "atom of `overlay_atoms`"),
        Column("overlay_hash", "string", "hash of the overlay"),
    ),
    (Column("overlay", "string", "name of the overlay"),),
)

EVALUATIONS = Table(
    "evaluations",
    "One row a figure of one system, or of the difference of two. Written by `evaluate`; `_summary.md` and "
    "`_summary.html` lie beside it. Metrics: recall, recall_curve, mean_km (of the images that have a prediction), "
    "median_answered_km (likewise), median_km (a missing prediction is infinitely far), geoscore, hit_country, "
    "hit_region, hit_area, hit_city, area_recall, area_curve, aurc. Differences are to the baseline and on the same "
    "images: of mean_km and median_answered_km those that both systems answered.",
    (
        Column("system", "string", "the system"),
        Column("compared_to", "string", "if set: value is `system` minus this one, on the same samples", nullable=True),
        Column("metric", "string", "what was measured"),
        Column("protocol", "string", "how: a GCD protocol's name, reverse_geocoder, or recall_vs_area"),
        Column("stratum", "string", "by what the images are divided; `all` for undivided"),
        Column("stratum_value", "string", "which of them"),
        Column("balanced_by", "string", "if set: its values weigh the same, images without one nothing", nullable=True),
        Column("threshold_km", "double", "distance of a recall, or radius of the cap of area_km2", nullable=True),
        Column("area_km2", "double", "area of a recall vs area", nullable=True),
        Column(
            "value", "double", "the figure; shares are in [0, 1]; null where it is infinite or nothing", nullable=True
        ),
        Column("low", "double", "lower end of the bootstrap interval, likewise", nullable=True),
        Column("high", "double", "upper end, likewise", nullable=True),
        Column("n", "bigint", "images that count"),
        Column(
            "missing",
            "bigint",
            "images without a prediction: misses everywhere; of a difference, of both added up",
        ),
    ),
)

SPLITS = Table(
    "splits",
    "One row an image of the runs that were split, also those that are in no split: rows in = rows out. Written by "
    "`build_splits`.",
    (
        Column("source", "string", "source of the image"),
        Column("image_id", "string", "the image"),
        Column("split", "string", "the split that it is in, or `left_out`"),
        Column("drawn", "string", "the split that it was drawn for", nullable=True),
        Column(
            "reason",
            "string",
            "why it was left out: no_position, not_drawn, no_group, same_group, too_near, too_dense, no_label, "
            "no_class, over_cap or over_balance; null if it was not",
            nullable=True,
        ),
        Column(
            "distance_km",
            "double",
            "great-circle distance to the nearest image for which a too_near or too_dense one was left out",
            nullable=True,
        ),
    ),
    (Column("split_set", "string", "name of the set of splits"),),
)

SPLIT_RECEIPT = Table(
    "split_receipt",
    "What became of the images of a set of splits: one row an outcome, of all classes together (partition null) and by "
    "the regions of each partition that a cap or balance names. Written by `build_splits`.",
    (
        Column("drawn", "string", "the split that the images were drawn for; null: none", nullable=True),
        Column("outcome", "string", "`kept`, or the reason of `splits`"),
        Column("partition", "string", "the partition whose regions are counted; null: all images", nullable=True),
        Column("region", "bigint", "the region, or -1, -2, -3 as in `labels`; null: not labelled", nullable=True),
        Column("region_name", "string", "its name", nullable=True),
        Column("images", "bigint", "how many images"),
    ),
    (Column("split_set", "string", "name of the set of splits"),),
)

ALL = (
    IMAGES,
    REJECTS,
    RASTER_CATALOG,
    PARTITIONS,
    REGIONS,
    LABELS,
    OVERLAY_ATOMS,
    OVERLAY_RUNS,
    EVALUATIONS,
    SPLITS,
    SPLIT_RECEIPT,
)


def labels_table(partitions: list[str]) -> Table:
    """Table `labels` with one column per partition name. ValueError if `labels` already has a column of that name."""
    return LABELS.with_columns([Column(name, "bigint", f"region of partition {name}") for name in partitions])


def overlay_atoms_table(partitions: list[str]) -> Table:
    """Table `overlay_atoms` with one column per partition name. ValueError if it already has a column of that name."""
    return OVERLAY_ATOMS.with_columns([Column(name, "bigint", f"region of partition {name}") for name in partitions])


def documentation() -> str:
    """The content of docs/tables.md."""
    head = (
        "# Tables\n\nGenerated by `python -m geosieve.tables.schemas > docs/tables.md`; do not edit.\n\n"
        "Parquet, zstd. Tables with a geometry are GeoParquet 1.1 with a bbox covering column. Timestamps are UTC, in\n"
        "microseconds. A folder `run_id=…` counts only when it holds `_SUCCESS`, which lists its files and rows;\n"
        "beside it lie `_config.json` (the effective configuration) and `_report.json`.\n"
    )
    return "\n\n".join([head.rstrip(), *(table.markdown() for table in ALL)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(documentation())
