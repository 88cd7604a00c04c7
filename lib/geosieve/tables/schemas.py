"""The tables of this project: the contract between jobs. `python -m geosieve.tables.schemas` prints docs/tables.md."""

from __future__ import annotations

import sys

from geosieve.tables.schema import BBOX, Column, Table

IMAGE_KEY = ("source", "image_id")
"""Columns that tell images apart, in all tables of images."""

IMAGES = Table(
    "images",
    "One row per image. Written by `ingest_images`. An id occurs once per run.",
    (
        Column("image_id", "string", "the source's id of the image"),
        Column("uri", "string", "the image's file, or the archive that contains it, if known", nullable=True),
        Column("member", "string", "path of the image inside the archive; null for a file of its own", nullable=True),
        Column(
            "offset",
            "bigint",
            "where its stored bytes begin in the file, in bytes, or the number of its row in a Parquet file, from 0; "
            "null in a compressed tar, which cannot be entered",
            nullable=True,
        ),
        Column("length", "bigint", "number of its stored bytes", nullable=True),
        Column(
            "compression",
            "string",
            "`none`, `deflate` (of a zip's member), or `tar.gz`, `tar.bz2`, `tar.xz`, `tar.zst` of the whole archive, "
            "which must be read from its start; `parquet`: it is in the column `member` of a Parquet file",
            nullable=True,
        ),
        Column("lat", "double", "WGS-84 latitude, degrees", nullable=True),
        Column("lon", "double", "WGS-84 longitude, degrees, in [-180, 180]", nullable=True),
        Column(
            "captured_at",
            "timestamp",
            "time at which it was taken; UTC if the source knows the time zone",
            nullable=True,
        ),
        Column(
            "author",
            "string",
            "author or uploader, as named by the source; a split keeps an author's images together",
            nullable=True,
        ),
        Column(
            "sequence",
            "string",
            "sequence or album of the image; a split keeps a sequence's images together",
            nullable=True,
        ),
        Column("width", "int", "width in pixels, after the EXIF orientation is applied", nullable=True),
        Column("height", "int", "height in pixels, after the EXIF orientation is applied", nullable=True),
        Column("orientation", "int", "EXIF orientation, 1-8", nullable=True),
        Column("licence", "string", "licence as the source states it", nullable=True),
        Column(
            "content_sha256",
            "string",
            "SHA-256 of the file's bytes, hex; null if only a list or headers were read",
            nullable=True,
        ),
        Column(
            "perceptual_hash",
            "bigint",
            "64 bits, nearly the same for copies that were scaled or compressed anew; null like content_sha256",
            nullable=True,
        ),
        Column(
            "warnings",
            "array<struct<code:string,message:string>>",
            "doubts about the row that did not lead to its refusal",
        ),
    ),
    (Column("source", "string", "name of the source"),),
)

REJECTS = Table(
    "rejects",
    "One row per refused input, of every job. In every run, rows in = rows out + rejects.",
    (
        Column("id", "string", "the input's id, if it has one", nullable=True),
        Column("uri", "string", "the file it came from", nullable=True),
        Column("stage", "string", "the step of the job that refused it"),
        Column("error_class", "string", "the reason, as a fixed word to group by"),
        Column("message", "string", "the reason in words; at most 500 characters"),
    ),
    (
        Column("job", "string", "the job that refused it"),
        Column("part", "string", "source, collection, or `all`"),
    ),
)

HARVESTED_PHOTOS = Table(
    "harvested_photos",
    "One row per photo that a harvest has downloaded. Written by `harvest_flickr`. The file of a photo is "
    "`_photos/<source>/<run_id>/<image_id>.jpg` beside the tables; `ingest_images` joins both to rows of `images` "
    "(conf/ingest_images/harvest.yaml).",
    (
        Column("image_id", "string", "the service's id of the photo; the name of its file, without `.jpg`"),
        Column("lat", "double", "WGS-84 latitude, degrees"),
        Column("lon", "double", "WGS-84 longitude, degrees, in [-180, 180]"),
        Column(
            "captured_at", "timestamp", "time at which it was taken, by the camera's clock; no time zone", nullable=True
        ),
        Column("uploaded_at", "timestamp", "time at which it was uploaded"),
        Column("author", "string", "id of the account that uploaded it"),
        Column("author_name", "string", "its name, for the attribution", nullable=True),
        Column("title", "string", "title, for the attribution", nullable=True),
        Column("licence", "string", "cc-by-2.0, cc-by-sa-2.0, cc-by-4.0, cc-by-sa-4.0, cc0-1.0 or pdm-1.0"),
        Column("url", "string", "where it was downloaded"),
        Column("page", "string", "its page at the service, for the attribution"),
        Column("bytes", "bigint", "size of its file"),
        Column("content_sha256", "string", "SHA-256 of the file's bytes, hex"),
    ),
    (Column("source", "string", "name of the harvest"),),
)

RASTER_CATALOG = Table(
    "raster_catalog",
    "One row per raster file (one band of it). Written by `catalog_rasters`.",
    (
        Column("uri", "string", "address of the file"),
        Column("band", "int", "band to read, from 1"),
        Column(
            "priority",
            "int",
            "where files overlap, the file with the lowest number and a valid value counts; on a tie, the first URI",
        ),
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
        Column("scale", "double", "value in units = scale · stored value + offset; 1 if the file states none"),
        Column("offset", "double", "see scale; 0 if the file states none"),
        Column(
            "nodata", "double", "stored value that means no data, possibly NaN; null if a mask decides", nullable=True
        ),
        Column("mask", "string", "what else marks valid pixels: `none`, `mask` (mask band) or `alpha`"),
        Column("block_height", "int", "rows of a block"),
        Column("block_width", "int", "columns of a block"),
        Column("value_min", "double", "lowest valid value, in units; null without statistics", nullable=True),
        Column("value_max", "double", "highest valid value, in units; null without statistics", nullable=True),
        Column(
            "positive_min", "double", "lowest valid value above 0, in units; null without statistics", nullable=True
        ),
        Column(
            "header_sha256",
            "string",
            "checksum that shows whether the file has changed: of its header, block offsets, size and time (S3: ETag)",
        ),
        Column(
            "content_sha256",
            "string",
            "checksum of the type, the size and all pixels' values and validity. It does not depend on format, tiling "
            "and compression. With `checksum: sampled` it covers 16 blocks of pixels",
        ),
        Column("is_global", "boolean", "whether it covers every longitude and latitude"),
        Column(
            "footprint", "geometry", "WGS-84 outline (lon, lat) that contains every pixel, cut at ±180; may be larger"
        ),
        BBOX,
    ),
    (Column("collection", "string", "name of the collection: the files that make up one map"),),
)

PARTITIONS = Table(
    "partitions",
    "One row per partition that a run built or used. Its hash covers what decides the region of a point "
    "(docs/design.md, Identity). Written by `build_partitions`, `label_attributes` and `build_overlay`.",
    (
        Column("partition", "string", "name"),
        Column("partition_hash", "string", "hash of the partition: SHA-256, hex"),
        Column(
            "kind",
            "string",
            "classes, density, s2, polygons or built; of a built partition: s2_cells, quadtree or voronoi",
        ),
        Column("n_regions", "bigint", "number of its regions"),
        Column("definition", "string", "the definition as JSON"),
    ),
    (Column("job", "string", "the job that used or built it; of an overlay: `build_overlay_<name>`"),),
)

REGIONS = Table(
    "regions_of_partition",
    "One row per region of a partition; of an S2 level, only the cells that contain an image. "
    "Written by `build_partitions`, `label_attributes` and `build_overlay`.",
    (
        Column("partition", "string", "name of the partition"),
        Column("partition_hash", "string", "hash of the partition"),
        Column("region", "bigint", "index of the region, from 0"),
        Column("name", "string", "name of the region; an S2 cell's token, a quadtree box's quadkey"),
        Column(
            "parent", "bigint", "region that contains it, of the next coarser partition of the family", nullable=True
        ),
        Column("area_km2", "double", "area on the sphere of radius 6371.0088 km", nullable=True),
        Column("lat", "double", "latitude of its images' mean position on the sphere, degrees", nullable=True),
        Column("lon", "double", "longitude of the mean position, degrees, in [-180, 180]", nullable=True),
        Column("n_images", "bigint", "images from which the region was built", nullable=True),
        Column("geometry", "geometry", "outline (lon, lat), if the region is a polygon", nullable=True),
        BBOX,
    ),
    (Column("job", "string", "the job that used or built the partition; see `partitions`"),),
)

LABELS = Table(
    "labels",
    "One row per image and one bigint column per partition, with the partition's name. It holds the index of the "
    "region that contains the image; or -1: outside of the map; -2: no data there; -3: a value that the partition "
    "does not name. For the names of regions, join `regions_of_partition` on partition and region. Written by "
    "`label_attributes`.",
    (
        Column("image_id", "string", "id of the image"),
        Column("source", "string", "source of the image"),
        Column("lat", "double", "WGS-84 latitude, degrees"),
        Column("lon", "double", "WGS-84 longitude, degrees"),
        Column("s2_id", "bigint", "S2 cell of level 30, as a signed number; the rows of a file are sorted by it"),
    ),
)

OVERLAY_ATOMS = Table(
    "overlay_atoms",
    "One row per atom of an overlay. An overlay is the common refinement of partitions on an equal-angle grid; an "
    "atom is the area that lies in the same region of each partition. One bigint column per partition, with its name, "
    "holds the region, or -1, -2, -3 as in `labels`. Every region of S2 cells, quadtrees, geocells and polygons has "
    "atoms, whose areas sum to the region's exact area. Regions of raster maps consist of whole pixels. Written by "
    "`build_overlay`; the `_report.json` beside the rows has the partitions' hashes.",
    (
        Column("atom", "bigint", "index of the atom, from 0; atoms are sorted by the partitions' columns"),
        Column("overlay_hash", "string", "hash of the overlay; an atom's index is valid only with it"),
        Column("grid_rows", "int", "number of rows of the overlay's grid; it has twice as many columns"),
        Column("pixels", "bigint", "number of pixels of the grid that overlap the atom"),
        Column("area_km2", "double", "area on the sphere of radius 6371.0088 km"),
        Column("lat", "double", "latitude of the centroid on the sphere, degrees"),
        Column("lon", "double", "longitude of the centroid, degrees"),
        Column("south", "double", "bounding box of its pixels, degrees"),
        Column("west", "double", "bounding box; greater than east if the box crosses ±180"),
        Column("north", "double", "bounding box"),
        Column("east", "double", "bounding box"),
        Column("land_share", "double", "share of the area that is land; null without a map of land", nullable=True),
    ),
    (Column("overlay", "string", "name of the overlay"),),
)

OVERLAY_RUNS = Table(
    "overlay_runs",
    "The grid of an overlay, for drawing. One row per run: neighbouring pixels of one grid row that lie in the same "
    "atom. A pixel that several atoms share has one row per atom, with `length` 1 and `share` below 1; its shares sum "
    "to 1. Shares are estimates; exact areas are in `overlay_atoms`. The atom of a point follows from the point's "
    "regions, not from this grid.",
    (
        Column("row", "int", "row of the grid, 0 at the north pole"),
        Column("column", "int", "first column of the run; column 0 begins at longitude -180"),
        Column("length", "int", "number of pixels"),
        Column("share", "double", "share of the pixels' area"),
        Column("land", "boolean", "whether the pixels are land; null without a map of land", nullable=True),
        Column("atom", "bigint", "index of the atom in `overlay_atoms`"),
        Column("overlay_hash", "string", "hash of the overlay"),
    ),
    (Column("overlay", "string", "name of the overlay"),),
)

ATOM_CELLS = Table(
    "atom_cells",
    "One row per atom of an overlay and S2 cell that it touches, so that a comparison of integers tells whether a "
    "region may touch a place: two cells have points in common if their ranges of leaf cells overlap. The cells of an "
    "atom cover all pixels of the grid that have a part of it, so they may be more than it touches. Rows of a file are "
    "sorted by `first_leaf`. Not for joined regions (`least_km2`), whose rows have another `overlay_hash`: for these "
    "there are the bounding boxes in `ranked_regions`. Written by `atom_cells`.",
    (
        Column("atom", "bigint", "index of the atom in `overlay_atoms`"),
        Column("overlay_hash", "string", "hash of the overlay"),
        Column("level", "int", "level of the cell"),
        Column("s2_id", "bigint", "the S2 cell, as a signed number"),
        Column("first_leaf", "bigint", "the first cell of level 30 in it, as a signed number"),
        Column("last_leaf", "bigint", "the last one; others of the same cell are between them"),
        Column(
            "share",
            "double",
            "share of the atom's area, on the grid, in the cell: an estimate by parts that are an eighth of a cell or "
            "less; 0 if the cell is only touched. The shares of an atom sum to 1",
        ),
    ),
    (Column("overlay", "string", "name of the overlay"),),
)

EVALUATIONS = Table(
    "evaluations",
    "One row per figure of a system, or of the difference of two systems. Written by `evaluate`; `_summary.md` and "
    "`_summary.html` lie beside the rows. Metrics: recall, recall_curve, mean_km and median_answered_km (of the "
    "images that have a prediction), median_km (a missing prediction counts as infinitely far), geoscore, "
    "hit_country, hit_region, hit_area, hit_city, area_recall, area_curve, aurc. A difference is between a system and "
    "the baseline, on the same images; for mean_km and median_answered_km on the images that both systems answered.",
    (
        Column("system", "string", "name of the system"),
        Column(
            "compared_to",
            "string",
            "if set, the value is `system` minus this system, on the same bootstrap samples",
            nullable=True,
        ),
        Column("metric", "string", "the metric"),
        Column("protocol", "string", "a GCD protocol, reverse_geocoder or recall_vs_area"),
        Column("stratum", "string", "column by which the images are divided; `all`: not divided"),
        Column("stratum_value", "string", "value of that column"),
        Column(
            "balanced_by",
            "string",
            "if set, each value of this column has the same weight; images without a value have none",
            nullable=True,
        ),
        Column("threshold_km", "double", "threshold of a recall, or radius of the cap with area_km2", nullable=True),
        Column("area_km2", "double", "area, for Recall vs Area", nullable=True),
        Column("value", "double", "the figure; shares are in [0, 1]; null if infinite or undefined", nullable=True),
        Column("low", "double", "lower end of the bootstrap interval", nullable=True),
        Column("high", "double", "upper end of the bootstrap interval", nullable=True),
        Column("n", "bigint", "number of images that count"),
        Column(
            "missing",
            "bigint",
            "number of images without a prediction, which count as misses; of a difference: the sum over both systems",
        ),
        Column("refused", "bigint", "number of those images whose prediction was refused"),
    ),
)

SPLITS = Table(
    "splits",
    "One row per image of the runs that were split, including images that are in no split. Written by `build_splits`.",
    (
        Column("source", "string", "source of the image"),
        Column("image_id", "string", "id of the image"),
        Column("split", "string", "split of the image, or `left_out`"),
        Column("drawn", "string", "split for which the image was drawn", nullable=True),
        Column(
            "reason",
            "string",
            "reason why it was left out: no_position, not_drawn, no_group, same_group, too_near, too_dense, no_label, "
            "no_class, over_cap or over_balance; null if the image is in a split",
            nullable=True,
        ),
        Column(
            "distance_km",
            "double",
            "great-circle distance to the nearest image that led to too_near or too_dense",
            nullable=True,
        ),
    ),
    (Column("split_set", "string", "name of the set of splits"),),
)

SPLIT_RECEIPT = Table(
    "split_receipt",
    "Counts of the images of a set of splits by outcome: over all images (partition is null), and by region of each "
    "partition that a cap or balance names. Written by `build_splits`.",
    (
        Column("drawn", "string", "split for which the images were drawn; null: none", nullable=True),
        Column("outcome", "string", "`kept`, or the reason in `splits`"),
        Column("partition", "string", "partition whose regions are counted; null: all images", nullable=True),
        Column("region", "bigint", "region, or -1, -2, -3 as in `labels`; null: not labelled", nullable=True),
        Column("region_name", "string", "name of the region", nullable=True),
        Column("images", "bigint", "number of images"),
        Column(
            "near_duplicates",
            "bigint",
            "number of these images that have a near duplicate among all images, in whichever split; null if "
            "`perceptual_hash` is not among the groups",
            nullable=True,
        ),
    ),
    (Column("split_set", "string", "name of the set of splits"),),
)

TRAINING_SHARDS = Table(
    "training_shards",
    "One row per image of a training set, with one bigint column per partition, as in `labels`. A file has images of "
    "one split in random order, as one row group; the files of a split differ by at most one row. `_shards.json` "
    "beside them lists the files in order. Written by `prepare_training_set`.",
    (
        Column("source", "string", "source of the image"),
        Column("image_id", "string", "id of the image"),
        Column("split", "string", "split of the image"),
        Column("shard", "int", "number of the file within the split, from 0"),
        Column("shard_row", "int", "number of the row within the file, from 0; a file is sorted by it"),
        Column("image", "binary", "JPEG file in sRGB, upright, without metadata"),
        Column("width", "int", "width in pixels"),
        Column("height", "int", "height in pixels"),
        Column("lat", "double", "WGS-84 latitude, degrees"),
        Column("lon", "double", "WGS-84 longitude, degrees"),
        Column("captured_at", "timestamp", "as in `images`", nullable=True),
        Column("author", "string", "as in `images`", nullable=True),
        Column("sequence", "string", "as in `images`", nullable=True),
        Column("licence", "string", "as in `images`", nullable=True),
    ),
    (Column("training_set", "string", "name of the training set"),),
    # Files are planned for a quarter of this (training/files.py). The bytes of a file in the making are in memory.
    row_group_bytes=512 << 20,
)

PREDICTORS = Table(
    "predictors",
    "One row per trained predictor: where its artefact lies, and how good it is on the validation split. Written by "
    "`train_predictor`.",
    (
        Column("artefact", "string", "URI of its folder; `predictor.json` there says all about it"),
        Column("artefact_sha256", "string", "SHA-256 of `predictor.json`, which has those of the other files, hex"),
        Column("backbone", "string", "name of its network in timm"),
        Column("shards", "string", "URI of the run of training shards"),
        Column(
            "partitions",
            "array<struct<name:string,hash:string,regions:bigint,temperature:double,images:bigint,log_loss:double,"
            "top1:double>>",
            "partitions that it tells: hash, number of regions, fitted temperature; images of the validation split "
            "with a region, their mean log loss, and the share whose region is the most probable",
        ),
    ),
    (Column("predictor", "string", "name of the predictor"),),
)

ENSEMBLES = Table(
    "ensembles",
    "One row per fitted ensemble: where its artefact lies. Written by `fit_ensemble`.",
    (
        Column("artefact", "string", "URI of its folder; `ensemble.yaml` there says all about it"),
        Column("artefact_sha256", "string", "SHA-256 of `ensemble.yaml`, hex"),
        Column("overlay_hash", "string", "hash of the overlay that it was fitted over"),
        Column(
            "members",
            "array<struct<name:string,partition:string,predictor:string,weight:double,temperature:double>>",
            "members; `predictor` is the URI of an artefact",
        ),
        Column(
            "log_density", "double", "mean natural logarithm of the density per km² at the truth, of held-out images"
        ),
    ),
    (Column("ensemble", "string", "name of the ensemble"),),
)

RANKED_REGIONS = Table(
    "ranked_regions",
    "One row per image and region of its answer, the densest first. Rows of a file are sorted by `s2_id`. Written by "
    "`rank_regions` and `geolocate_archive`.",
    (
        Column("source", "string", "source of the image"),
        Column("image_id", "string", "id of the image"),
        Column("rank", "int", "place of the region by density, from 1; ties are in the order of `atom`"),
        Column("atom", "bigint", "index in `overlay_atoms`; of the joined region, if a least area was asked for"),
        Column("overlay_hash", "string", "hash of the overlay; an atom's index is valid only with it"),
        Column("probability", "double", "that the image was taken in the region"),
        Column("area_km2", "double", "area of the region"),
        Column("cumulative_probability", "double", "of this region and all that are ranked before it"),
        Column("cumulative_area_km2", "double", "of the same regions"),
        Column("s2_id", "bigint", "S2 cell of level 30 that contains the centroid, as a signed number"),
        Column("lat", "double", "latitude of the centroid on the sphere, degrees"),
        Column("lon", "double", "longitude of the centroid, degrees"),
        Column("south", "double", "bounding box of the region, degrees"),
        Column("west", "double", "bounding box; greater than east if it crosses ±180"),
        Column("north", "double", "bounding box"),
        Column("east", "double", "bounding box"),
    ),
    (Column("ranking", "string", "name of the ranking"),),
)

IMAGE_SUMMARY = Table(
    "image_summary",
    "One row per image that was ranked. Figures are null where the members exclude each other, so that no place has a "
    "density above 0. Written by `rank_regions` and `geolocate_archive`.",
    (
        Column("source", "string", "source of the image"),
        Column("image_id", "string", "id of the image"),
        Column("overlay_hash", "string", "hash of the overlay that was ranked"),
        Column("predictions", "int", "number of members that have said something about the image"),
        Column("no_evidence", "boolean", "no member has: every place is as probable as any other, but for priors"),
        Column("contradiction", "boolean", "members exclude each other everywhere, so there is no answer"),
        Column("lat", "double", "the point with the least expected distance to the truth, degrees", nullable=True),
        Column("lon", "double", "its longitude, degrees", nullable=True),
        Column("expected_km", "double", "that distance, over the 128 most probable regions", nullable=True),
        Column("entropy", "double", "of the density per km², nats; its exponential is an area in km²", nullable=True),
        Column("area_50_km2", "double", "area of the densest regions that hold half of the probability", nullable=True),
        Column("area_90_km2", "double", "of those that hold nine tenths of it", nullable=True),
        Column("regions", "int", "number of rows in `ranked_regions`"),
        Column("cut_short", "boolean", "the answer has more regions than there are rows"),
        Column("set_coverage", "double", "stated coverage of the conformal set; null if none was asked", nullable=True),
        Column("set_regions", "bigint", "number of its atoms", nullable=True),
        Column("set_area_km2", "double", "its area", nullable=True),
        Column("answer_run_id", "string", "run whose `ranked_regions` has the answer"),
        Column("answer_source", "string", "source of the image that the answer stands under there"),
        Column(
            "answer_image_id",
            "string",
            "id of that image; another one if this is a copy of an image that was answered before",
        ),
        Column("content_sha256", "string", "as in `images`; null if only predictions are known", nullable=True),
        Column("model_set", "string", "hash of all that an answer depends on, but the image", nullable=True),
        Column("claim_p", "double", "p-value of the position in EXIF; small: it does not fit", nullable=True),
        Column("claim_contradicts", "boolean", "the p-value is below the asked level", nullable=True),
        Column("domain_p", "double", "p-value of the image being like those of the calibration", nullable=True),
        Column("out_of_domain", "boolean", "the p-value is below the asked level", nullable=True),
    ),
    (Column("ranking", "string", "name of the ranking"),),
)

PREDICTIONS = Table(
    "predictions",
    "One row per image and predictor that said something about it: the most probable regions. `rank_regions` reads "
    "them as `sparse`. Written by `geolocate_archive`.",
    (
        Column("source", "string", "source of the image"),
        Column("image_id", "string", "id of the image"),
        Column("predictor", "string", "member of the ensemble"),
        Column("partition_hash", "string", "hash of the partition that it tells"),
        Column("probabilities", "array<struct<region:bigint,probability:double>>", "the most probable regions"),
        Column("rest", "double", "probability of all other regions"),
    ),
    (Column("ranking", "string", "name of the ranking"),),
)

SCANNED_FILES = Table(
    "scanned_files",
    "One row per file of a source that a scan has looked at, or per part of it. A later scan passes over files of "
    "which no image is left and that have the same size and time. Written by `geolocate_archive`.",
    (
        Column("source", "string", "name of the source"),
        Column("uri", "string", "URI of the file"),
        Column("bytes", "bigint", "its size"),
        Column("modified_at", "timestamp", "when it was changed last, as its store says"),
        Column(
            "images_left",
            "bigint",
            "its images that the run did not come to, e.g. at a limit; 1 if files changed and nobody knows the number",
        ),
        Column("model_set", "string", "as in `image_summary`"),
    ),
    (Column("ranking", "string", "name of the ranking"),),
)

AUDIT = Table(
    "audit",
    "One row per run: who looked for the places of which images, with what. Written by `geolocate_archive`.",
    (
        Column("started_at", "timestamp", "when the run began"),
        Column("user", "string", "who ran it, as the operating system says"),
        Column("host", "string", "the driver's host name"),
        Column("source", "string", "name of the source"),
        Column("uri", "string", "where its images are"),
        Column("model_set", "string", "as in `image_summary`"),
        Column("overlay_hash", "string", "hash of the overlay"),
        Column(
            "predictors",
            "array<struct<member:string,predictor:string,sha256:string>>",
            "members: the URI of an artefact and the SHA-256 of its description, or the name of a class",
        ),
        Column("images", "bigint", "images that were answered"),
        Column("computed", "bigint", "those that predictors looked at; the others are copies"),
        Column("rejected", "bigint", "images that were refused"),
        Column("least_km2", "double", "the least area of a region; null: none was asked", nullable=True),
        Column("claims_tested", "boolean", "positions in EXIF were compared with the answers"),
        Column("positions_kept", "boolean", "positions in EXIF stand in `images`"),
    ),
    (Column("ranking", "string", "name of the ranking"),),
)

STRIPS = Table(
    "strips",
    "One row per strip: an 8-bit RGB cloud-optimised GeoTIFF in the UTM zone of the strip's centre, whose mask says "
    "where it is empty. Written by `prepare_strips`.",
    (
        Column("strip_id", "string", "path of the strip below the folder of its source, without the extension"),
        Column("uri", "string", "the GeoTIFF"),
        Column("bytes", "bigint", "its size"),
        Column("content_sha256", "string", "SHA-256 of its bytes, hex"),
        Column("epsg", "int", "its CRS: 32601-32660 or 32701-32760, WGS 84 / UTM"),
        Column("utm_zone", "string", "the zone, e.g. 33N; zones are six degrees wide everywhere"),
        Column(
            "transform",
            "struct<a:double,b:double,c:double,d:double,e:double,f:double>",
            "affine: x = a·col + b·row + c, y = d·col + e·row + f, in metres",
        ),
        Column("width", "int", "pixels"),
        Column("height", "int", "pixels"),
        Column("resolution_m", "double", "size of a pixel in the CRS, metres"),
        Column("empty_share", "double", "share of its pixels that are empty, 0-1"),
        Column(
            "levels",
            "array<struct<band:int,black:double,white:double>>",
            "of red, green and blue: the band that was read, from 1, and the values that became 0 and 255",
        ),
        Column("source_uri", "string", "the strip as it was given"),
        Column("source_sha256", "string", "checksum of its header, block offsets, size and time (S3: ETag)"),
        Column("panchromatic_uri", "string", "the partner that sharpened it, if any", nullable=True),
        Column("native_resolution_m", "double", "size of its pixels on the ground before, in the middle; metres"),
        Column("sensor", "string", "as the configuration says", nullable=True),
        Column("captured_at", "timestamp", "as the configuration says", nullable=True),
        Column("off_nadir_deg", "double", "as the configuration says", nullable=True),
        Column("priority", "int", "where strips overlap, the lowest number is preferred"),
        Column(
            "footprint", "geometry", "WGS-84 outline (lon, lat) that contains the strip, cut at ±180; may be larger"
        ),
        BBOX,
    ),
    (Column("source", "string", "name of the source of strips"),),
)

CHIPS = Table(
    "chips",
    "One row per image and view: a square of an overhead raster around the position of the image. Written by "
    "`cut_chips`. Empty pixels are black.",
    (
        Column("source", "string", "source of the image, or name of the list of positions"),
        Column("image_id", "string", "the source's id of the image, or the id of the position"),
        Column("view", "string", "name of the view: a size and a resolution of the configuration"),
        Column("lat", "double", "WGS-84 latitude of the position, degrees"),
        Column("lon", "double", "WGS-84 longitude of the position, degrees, in [-180, 180]"),
        Column("raster_source", "string", "source of strips, or collection of rasters"),
        Column("raster_uri", "string", "the raster that the chip was cut from"),
        Column("strip_id", "string", "the strip, if the raster is a prepared strip", nullable=True),
        Column("epsg", "int", "CRS of the chip: 32601-32660 or 32701-32760, WGS 84 / UTM"),
        Column("utm_zone", "string", "the zone, e.g. 33N; zones are six degrees wide everywhere"),
        Column(
            "transform",
            "struct<a:double,b:double,c:double,d:double,e:double,f:double>",
            "affine: x = a·col + b·row + c, y = d·col + e·row + f, in metres",
        ),
        Column("width", "int", "pixels"),
        Column("height", "int", "pixels"),
        Column("resolution_m", "double", "size of a pixel in the CRS, metres; on the ground it is within 0.2 %"),
        Column("orientation", "string", "what is up: `raster` (where its rows begin) or `north` (of the UTM grid)"),
        Column("empty_share", "double", "share of its pixels that are empty, 0-1"),
        Column("captured_at", "timestamp", "of the strip, if known", nullable=True),
        Column("format", "string", "of the file: png, jpeg or webp"),
        Column("chip", "binary", "the picture as a file: 8-bit RGB"),
    ),
    (Column("chip_set", "string", "name of the set in the configuration of `cut_chips`"),),
    row_group_bytes=32 << 20,
)

PAIRS = Table(
    "pairs",
    "One row per photo with a picture of the ground around the place where it was taken. Written by `build_pairs`.",
    (
        Column("source", "string", "source of the photo"),
        Column("image_id", "string", "id of the photo"),
        Column("view", "string", "which view of `chips`"),
        Column("split", "string", "split of the photo; null if the pairs are not divided", nullable=True),
        Column("area", "string", "as the configuration names it; else the source of strips, or the collection"),
        Column("lat", "double", "WGS-84 latitude of the photo, degrees; the chip's centre"),
        Column("lon", "double", "WGS-84 longitude of the photo, degrees, in [-180, 180]"),
        Column("captured_at", "timestamp", "of the photo, as in `images`", nullable=True),
        Column("author", "string", "as in `images`", nullable=True),
        Column("licence", "string", "of the photo, as in `images`", nullable=True),
        Column("photo", "binary", "JPEG file in sRGB, upright, without metadata"),
        Column("photo_width", "int", "pixels"),
        Column("photo_height", "int", "pixels"),
        Column("chip", "binary", "file, as in `chips`"),
        Column("chip_format", "string", "png, jpeg or webp"),
        Column("chip_width", "int", "pixels"),
        Column("chip_height", "int", "pixels"),
        Column(
            "chip_transform",
            "struct<a:double,b:double,c:double,d:double,e:double,f:double>",
            "affine: x = a·col + b·row + c, y = d·col + e·row + f, in metres",
        ),
        Column("chip_epsg", "int", "CRS of the chip: WGS 84 / UTM"),
        Column("chip_resolution_m", "double", "size of a pixel of the chip in its CRS, metres"),
        Column("chip_captured_at", "timestamp", "of the strip", nullable=True),
        Column("raster_uri", "string", "the raster that the chip was cut from"),
        Column("strip_id", "string", "the strip; null for other rasters", nullable=True),
    ),
    (Column("pair_set", "string", "name of the set of pairs"),),
    row_group_bytes=32 << 20,
)

ALL = (
    IMAGES,
    REJECTS,
    HARVESTED_PHOTOS,
    RASTER_CATALOG,
    PARTITIONS,
    REGIONS,
    LABELS,
    OVERLAY_ATOMS,
    OVERLAY_RUNS,
    ATOM_CELLS,
    EVALUATIONS,
    SPLITS,
    SPLIT_RECEIPT,
    TRAINING_SHARDS,
    PREDICTORS,
    ENSEMBLES,
    RANKED_REGIONS,
    IMAGE_SUMMARY,
    PREDICTIONS,
    SCANNED_FILES,
    AUDIT,
    STRIPS,
    CHIPS,
    PAIRS,
)


def labels_table(partitions: list[str]) -> Table:
    """Table `labels` with one column per partition name. ValueError if `labels` already has a column of that name."""
    return LABELS.with_columns([Column(name, "bigint", f"region of partition {name}") for name in partitions])


def overlay_atoms_table(partitions: list[str]) -> Table:
    """Table `overlay_atoms` with one column per partition name. ValueError if it already has a column of that name."""
    return OVERLAY_ATOMS.with_columns([Column(name, "bigint", f"region of partition {name}") for name in partitions])


def training_shards_table(partitions: list[str]) -> Table:
    """Table `training_shards` with one column per partition name. ValueError if it already has such a column."""
    return TRAINING_SHARDS.with_columns([Column(name, "bigint", f"region of partition {name}") for name in partitions])


def documentation() -> str:
    """The content of docs/tables.md."""
    head = (
        "# Tables\n\nGenerated by `python -m geosieve.tables.schemas > docs/tables.md`; do not edit.\n\n"
        "Parquet, zstd. Tables with a geometry are GeoParquet 1.1 with a bbox covering column. Timestamps are UTC, in\n"
        "microseconds. A folder `run_id=…` counts only when it holds `_SUCCESS`, which lists its files and rows;\n"
        "beside it lie `_config.json` (the effective configuration) and `_report.json`. A run that the `_SUCCESS` of\n"
        "another one names in `replaces` does not count any more: its rows are in that one (`compact`).\n"
    )
    return "\n\n".join([head.rstrip(), *(table.markdown() for table in ALL)]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(documentation())
