"""Near duplicates by perceptual hash, against comparisons of all pairs and against sums done by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from splitting import Splitting, Tables

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_DONE
from geosieve.splits.config import SplitConfig
from geosieve.splits.hamming import blocks_in_key, linked
from geosieve.splits.near_duplicates import hash_roots

Hashes = NDArray[np.int64]


def by_comparing_all(hashes: Hashes, bits: int) -> dict[int, int]:
    """The smallest hash of the component of each hash that has another within `bits` bits."""
    hashes = np.unique(hashes)
    signs = 1 - 2 * np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32)
    pairs = []
    for start in range(0, hashes.size, 1_000):
        equal_less_differing = signs[start : start + 1_000] @ signs.T
        pairs.append(np.argwhere(equal_less_differing >= 64 - 2 * bits) + np.array([start, 0]))
    first, other = np.concatenate(pairs).T
    root, before = np.arange(hashes.size), None
    while before is None or (root != before).any():  # each takes the smallest of its neighbours until nothing changes
        before = root.copy()
        np.minimum.at(root, first, before[other])
    members = np.bincount(root, minlength=hashes.size)[root] > 1
    return dict(zip(hashes[members].tolist(), hashes[root[members]].tolist(), strict=True))


def planted(n: int, flips: int, seed: int = 0) -> Hashes:
    """n random hashes of both signs; a fifth of them are copies of others with up to `flips` other bits."""
    rng = np.random.default_rng(seed)
    own = rng.integers(-(2**63), 2**63, n - n // 5)
    copies = rng.choice(own, n // 5)
    for flipped in range(flips):
        bit = np.int64(1) << rng.integers(0, 64, copies.size)
        copies = np.where(rng.integers(0, flips + 1, copies.size) > flipped, copies ^ bit, copies)
    return np.concatenate([own, copies])


def found_by_spark(spark: SparkSession, hashes: pd.Series, bits: int, n: int, partitions: int = 2) -> dict[int, int]:
    frame = spark.createDataFrame(pd.DataFrame({"perceptual_hash": hashes}), "perceptual_hash bigint")
    rows = hash_roots(frame.repartition(partitions), bits, n).collect()
    found = {row.perceptual_hash: row.root for row in rows}
    assert len(found) == len(rows)
    return found


def found_in_memory(hashes: Hashes, bits: int) -> dict[int, int]:
    distinct = np.unique(hashes)
    roots = linked(distinct.view(np.uint64), 64, bits)
    members = np.bincount(roots, minlength=distinct.size)[roots] > 1
    return dict(zip(distinct[members].tolist(), distinct[roots[members]].tolist(), strict=True))


def test_twenty_thousand_hashes_as_by_comparing_all(spark: SparkSession) -> None:
    hashes = planted(20_000, flips=6)
    expected = by_comparing_all(hashes, 4)
    assert 3_000 < len(expected) < 8_000
    assert found_by_spark(spark, pd.Series(hashes), 4, hashes.size) == expected


@pytest.mark.parametrize("bits", range(9))
def test_every_number_of_bits(bits: int) -> None:
    hashes = np.concatenate([planted(2_500, flips=10, seed=bits), 1 << np.arange(63), [-1, 0, -(2**63)]])
    assert found_in_memory(hashes, bits) == by_comparing_all(hashes, bits)


@pytest.mark.parametrize("bits", [0, 1, 8])
def test_every_band_of_spark_finds_its_pairs(spark: SparkSession, bits: int) -> None:
    hashes = planted(1_500, flips=10, seed=bits)
    assert found_by_spark(spark, pd.Series(hashes), bits, hashes.size) == by_comparing_all(hashes, bits)


@settings(max_examples=60)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 10**6), st.lists(st.integers(0, 63), max_size=9)), max_size=30),
    st.integers(0, 8),
)
def test_flipped_bits_anywhere(own: list[int], copies: list[tuple[int, list[int]]], bits: int) -> None:
    hashes = np.array(own)
    for source, flips in copies:
        flipped = np.bitwise_xor.reduce([np.int64(1) << np.int64(bit) for bit in flips] or [np.int64(0)])
        hashes = np.append(hashes, hashes[source % hashes.size] ^ flipped)
    assert found_in_memory(hashes, bits) == by_comparing_all(hashes, bits)


def test_chains_equal_hashes_signs_and_nulls(spark: SparkSession) -> None:
    a = 0x7234567890ABCDEF
    b, c = a ^ 0b1111, a ^ 0b11111111  # a and c differ by 8 bits, each from b by 4
    negative = a - 2**63 - 2**63 if a >= 2**63 else a ^ -(2**63)  # the sign is a bit like the others
    alone = 0x0F0F0F0F0F0F0F0F
    hashes = pd.Series([c, b, None, a, alone, alone, negative, None], dtype="Int64")
    expected = dict.fromkeys([a, b, c, negative], min(a, b, c, negative))
    assert expected[a] == negative < 0
    assert found_by_spark(spark, hashes, 4, 8) == expected
    nothing = pd.Series([None, alone, alone], dtype="Int64")
    assert found_by_spark(spark, nothing, 8, 3) == {}


def skewed(seed: int) -> Hashes:
    """5,000 hashes that agree in their lowest 40 bits, 2,000 of them near to each other, and 1,000 others."""
    rng = np.random.default_rng(seed)
    flat = np.unique(rng.integers(-(2**23), 2**23, 5_000)) << 40
    flat[:2_000] = np.arange(2_000) << 40
    return np.concatenate([flat | 0xABCDE12345, rng.integers(-(2**63), 2**63, 1_000)])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_many_hashes_that_share_bands(bits: int) -> None:
    hashes = skewed(bits)
    assert np.unique(hashes & 0xFFFFFFFFFF, return_counts=True)[1].max() > 4_900
    expected = by_comparing_all(hashes, bits)
    assert len(expected) >= 2_000 and len(set(expected.values())) < len(expected)
    assert found_in_memory(hashes, bits) == expected


def test_numbers_that_share_more_are_compared_where_there_are_more() -> None:
    blocks = [blocks_in_key(n, 64, 8) for n in (2, 100, 10_000, 1_000_000, 10**8, 10**10)]
    assert blocks[0] == 0 and blocks == sorted(blocks) and blocks[-1] > blocks[2] > 0
    assert blocks_in_key(10**6, 8, 8) == 0  # bits that may all differ give no key


def test_neither_order_nor_division_decide(spark: SparkSession) -> None:
    hashes = np.concatenate([planted(1_500, flips=5), skewed(0)])
    found = [
        found_by_spark(spark, pd.Series(np.random.default_rng(seed).permutation(hashes)), 4, n, partitions)
        for seed, n, partitions in [(1, 10, 1), (2, 400_000, 3)]
    ]
    assert found[0] == found[1] == by_comparing_all(hashes, 4)


HASH_OF = {
    # Two copies of one picture by different authors, and a third that is near only to the second.
    **{"a": 0, "b": 0b1111, "c": 0b11111111},
    # Equal hashes of two sources.
    **{"d": -1, "e": -1},
    # Near to nothing.
    **{"f": 0x00FF00FF00FF00FF, "g": None, "h": None, "i": 0x0F0F0F0F0F0F0F0F},
}
AUTHOR_OF = {**{name: name for name in "abcdefg"}, "h": "g", "i": None}


@pytest.fixture(scope="module")
def hashed(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Splitting:
    """40 images of each of the nine kinds above: hash and author of image `a17` are those of `a`, mixed with 17."""
    tables = Tables(tmp_path_factory.mktemp("hashed"))
    rng = np.random.default_rng(0)
    ids = pd.Series([f"{kind}{copy}" for kind in HASH_OF for copy in range(40)])
    authors = [f"{AUTHOR_OF[name[0]]}{name[1:]}" if AUTHOR_OF[name[0]] else "" for name in ids]
    images = pd.DataFrame({"image_id": ids, "lat": 1.0, "lon": rng.uniform(-9, 9, len(ids)), "author": authors})
    second = ids.str[0].isin(["c", "e"])
    for source, rows in (("one", images[~second]), ("two", images[second])):
        tables.ingest_images(rows, source)
        _set_hashes(tables, source)
    return Splitting(tables)


def _set_hashes(tables: Tables, source: str) -> None:
    """Write hashes into the committed run, as if files had been read: lists have none."""
    mixed = np.random.default_rng(1).integers(-(2**63), 2**63, 40).tolist()
    leaf = tables.tables / f"images/source={source}/run_id=r1"
    manifest = json.loads((leaf / "_SUCCESS").read_text())
    for entry in manifest["files"]:
        rows = pq.ParquetFile(leaf / entry["name"]).read()
        kinds = [(HASH_OF[name[0]], int(name[1:])) for name in rows["image_id"].to_pylist()]
        hashes = [None if value is None else value ^ mixed[copy] for value, copy in kinds]
        place = rows.column_names.index("perceptual_hash")
        pq.write_table(rows.set_column(place, "perceptual_hash", pa.array(hashes, pa.int64())), leaf / entry["name"])
        (leaf / f".{entry['name']}.crc").unlink()
        entry["bytes"] = (leaf / entry["name"]).stat().st_size
    (leaf / "._SUCCESS.crc").unlink()
    (leaf / "_SUCCESS").write_text(json.dumps(manifest))


HALVES: list[dict[str, Any]] = [{"name": "test", "share": 0.5}, {"name": "train", "share": 0.5}]


def test_near_duplicates_of_different_authors_are_in_one_split(hashed: Splitting) -> None:
    code, report = hashed(HALVES, run_id="near", groups=["author", "perceptual_hash"], labels=None)
    assert code == EXIT_DONE, report["error"]
    split = hashed.rows("near").set_index("image_id")["split"]
    for copy in range(40):
        for together in ("abc", "de", "gh"):
            assert len({split[f"{kind}{copy}"] for kind in together}) == 1
    # a, b, c, d, e: of each copy, five images have near duplicates, in two groups.
    assert report["details"]["near_duplicates"] == {"groups": 80, "images": 200}
    counted = {
        name: sum(split[f"{kind}{k}"] == name for kind in "abcde" for k in range(40)) for name in ("test", "train")
    }
    receipt = hashed.rows("near", "split_receipt").set_index("drawn")
    assert receipt["near_duplicates"].to_dict() == counted and sum(counted.values()) == 200
    assert "80 images of source one have no perceptual_hash" in " ".join(report["warnings"])


def test_three_bits_join_equal_hashes_only_and_a_hash_names_nobody(hashed: Splitting) -> None:
    splits = [{**half, "known_group": True} for half in HALVES]
    groups = ["author", "perceptual_hash"]
    code, report = hashed(splits, run_id="three", groups=groups, near_duplicate_bits=3, labels=None)
    assert code == EXIT_DONE, report["error"]
    rows = hashed.rows("three").set_index("image_id")
    pairs = [(pair, copy) for pair in ("ab", "bc", "de") for copy in range(40)]
    split = rows["split"]
    assert {pair for pair, copy in pairs if split[f"{pair[0]}{copy}"] != split[f"{pair[1]}{copy}"]} == {"ab", "bc"}
    assert report["details"]["near_duplicates"] == {"groups": 40, "images": 80}
    # The images i have a hash, but no author.
    assert (rows["reason"] == "no_group").equals(rows.index.to_series().str.startswith("i"))
    assert "have no author: nothing keeps them apart by group" in " ".join(report["warnings"])


@pytest.mark.parametrize(("groups", "bits"), [(["author", "perceptual_hash"], 4), (["author"], None)])
def test_the_effective_configuration_is_complete_and_can_be_used_again(groups: list[str], bits: int | None) -> None:
    given = {"name": "x", "seed": 1, "images": {"root": "t"}, "output": "t", "groups": groups, "splits": HALVES}
    config = SplitConfig.model_validate(given)
    assert config.near_duplicate_bits == bits
    assert SplitConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"groups": ["author"], "near_duplicate_bits": 4}, "needs perceptual_hash in groups"),
        ({"groups": ["perceptual_hash"], "near_duplicate_bits": 9}, "less than or equal to 8"),
        ({"groups": ["perceptual_hash"], "near_duplicate_bits": -1}, "greater than or equal to 0"),
    ],
)
def test_bits_without_a_meaning_are_refused(hashed: Splitting, config: dict[str, Any], said: str) -> None:
    code, report = hashed(HALVES, run_id="refused", labels=None, **config)
    assert code == EXIT_BAD_CONFIG and said in report["error"]


def test_a_known_group_needs_a_name_of_somebody(hashed: Splitting) -> None:
    splits = [{"name": "gallery", "share": 1.0, "known_group": True}]
    code, report = hashed(splits, run_id="refused", groups=["perceptual_hash"], labels=None)
    assert code == EXIT_BAD_CONFIG and "name a column of groups beside perceptual_hash" in report["error"]
