"""What the report says of a training set: outcomes, classes, colours, and rules of the splits that no longer hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from geosieve.labels.read import WITHOUT_REGION, CommittedLabels
from geosieve.splits.classes import label_column
from geosieve.splits.config import Balance, Cap, Split, fraction, rule_partitions
from geosieve.training.files import bucket
from geosieve.training.small_images import SQUARES, SUMS

_LISTED = 50  # regions of a partition that the report lists: those with the most images
_LEVELS = 255  # colours are told in units of the brightest level

COUNTED = ("images", "pixels", "bytes", *SUMS, *SQUARES)

Outcomes = dict[str, dict[str | None, Counter[str]]]
"""By split and error class (None: good images): sums COUNTED of numbers, bytes and colours."""


def count_outcomes(keys: DataFrame) -> tuple[Outcomes, dict[str, dict[int, int]]]:
    """What came of the images, and the number of good ones by split and `bucket`.

    `keys` are rows of `small_images`, without the images. The driver gets a row per split and bucket.
    """
    good = F.col("error_class").isNull()
    pixels = (F.col("width").cast("bigint") * F.col("height")).alias("pixels")
    columns = [F.lit(1).alias("images"), pixels, *map(F.col, COUNTED[2:])]
    of_good = F.when(good, bucket()).alias("bucket")  # rejects, which have no place, are counted together
    rows = keys.select("split", "error_class", of_good, *columns).groupBy("split", "error_class", "bucket")
    outcomes: Outcomes = {}
    buckets: dict[str, dict[int, int]] = {}
    for row in sorted(rows.agg(*(F.sum(name).alias(name) for name in COUNTED)).collect(), key=str):
        split, error_class = row["split"], row["error_class"]
        outcomes.setdefault(split, {}).setdefault(error_class, Counter()).update({k: row[k] or 0 for k in COUNTED})
        if error_class is None:
            buckets.setdefault(split, {})[row["bucket"]] = row["images"]
    return outcomes, buckets


def rejected(outcomes: Outcomes, names: Iterable[str]) -> dict[str, int]:
    """Refused images of some splits by error class."""
    totals: Counter[str] = Counter()
    for name in names:
        found = outcomes.get(name, {})
        totals.update({error_class: counts["images"] for error_class, counts in found.items() if error_class})
    return dict(sorted(totals.items()))


def channels(summed: Mapping[str, Any]) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue in [0, 1] over all pixels.

    `summed`: the number of `pixels`, and the integers SUMS and SQUARES. They are exact, so the order of images has no
    influence.
    """
    n = summed["pixels"]
    means = [Fraction(int(summed[name]), n) for name in SUMS]
    variances = [Fraction(int(summed[name]), n) - mean**2 for name, mean in zip(SQUARES, means, strict=True)]
    return {
        "mean": [float(mean / _LEVELS) for mean in means],
        "std": [sqrt(variance) / _LEVELS for variance in variances],
    }


def class_counts(images: DataFrame, labels: CommittedLabels) -> dict[str, dict[str, dict[str, Any]]]:
    """Images by split, partition and region.

    For each split and partition: `regions`, the number of regions with images; the images without a region, by the
    reason; and `images` of the regions with the most, by name.
    """
    listed = F.array(
        *(F.struct(F.lit(p).alias("partition"), F.col(label_column(p)).alias("region")) for p in labels.partitions)
    )
    rows = images.select("split", F.inline(listed)).groupBy("split", "partition", "region").count()
    each = Window.partitionBy("split", "partition")
    place = F.row_number().over(each.orderBy(F.expr("region < 0"), F.desc("count"), "region"))
    regions = F.count(F.when(F.col("region") >= 0, 1)).over(each)
    top = rows.select("*", place.alias("place"), regions.alias("regions")).where(
        (F.col("place") <= _LISTED) | (F.col("region") < 0)
    )
    found: dict[str, dict[str, dict[str, Any]]] = {}
    collected = top.orderBy("split", "partition", "place").collect()
    wanted = {
        p: sorted({row["region"] for row in collected if row["partition"] == p and row["region"] >= 0})
        for p in labels.partitions
    }
    names = labels.region_names(wanted)
    for row in collected:
        facts = found.setdefault(row["split"], {}).setdefault(row["partition"], {})
        facts["regions"] = row["regions"]
        if row["region"] < 0:
            facts[WITHOUT_REGION[row["region"]]] = row["count"]
        else:
            by_name = facts.setdefault("images", {})
            name = names[row["partition"]][row["region"]]
            by_name[name] = by_name.get(name, 0) + row["count"]  # regions may share a name
    return found


def broken_rules(splits: list[Split], images: DataFrame, labels: CommittedLabels) -> Iterator[str]:
    """What caps and balances of `splits` no longer hold for `images`, in words.

    Images that are refused, or that have no bytes or label, are missing from a split. `images` have the labels of the
    rules' partitions, which are in the run of `labels`.
    """
    names = replace(labels, partitions=tuple(rule_partitions(splits))).region_names() if splits else {}
    for split in splits:
        rule = split.balance or split.cap
        if rule is None:
            continue
        of_split = images.where(F.col("split") == split.name)
        counts: dict[str, int] = {}
        total = 0
        for region, n in of_split.groupBy(label_column(rule.partition)).count().collect():
            name = names[rule.partition].get(region, "")
            counts[name], total = counts.get(name, 0) + n, total + n
        if total:
            yield from _broken(split, rule, counts, total, [*names[rule.partition].values()])


def _broken(split: Split, rule: Cap | Balance, counts: dict[str, int], total: int, known: list[str]) -> Iterator[str]:
    where = f"split {split.name}, partition {rule.partition}"
    if isinstance(rule, Cap):
        for name, share in rule.shares.items():
            n = counts.get(name, 0)
            if n > fraction(share) * total:
                yield (
                    f"{where}: the cap no longer holds: {name!r} has {n} of {total} images, {n / total:.4%}, and not "
                    f"at most {share:.4%}"
                )
        return
    classes = {name: counts.get(name, 0) for name in rule.regions or dict.fromkeys(known)}
    fewest, most = min(classes, key=lambda name: classes[name]), max(classes, key=lambda name: classes[name])
    if classes[fewest] != classes[most]:
        yield (
            f"{where}: the balance no longer holds: classes differ by up to {classes[most] - classes[fewest]} images "
            f"({fewest!r} has {classes[fewest]}, {most!r} {classes[most]})"
        )
