"""Committed runs of small tables, written without Spark, and what queries about them must say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from committed import commit

from geosieve.geo import s2
from geosieve.geo.cover import Boxes, covered
from geosieve.tables.schemas import (
    ATOM_CELLS,
    IMAGE_SUMMARY,
    IMAGES,
    RANKED_REGIONS,
    REGIONS,
    REJECTS,
    labels_table,
)

R1, R2, R3 = "20260101T000000Z", "20260201T000000Z", "20260301T000000Z"
"""Runs; the last one is in the making."""
LEVEL = 5
ATOMS = {0: (36.0, -10.0, 44.0, 0.0), 1: (44.0, 0.0, 50.0, 8.0), 2: (-20.0, 175.0, -15.0, -178.0), 3: (0, -60, 60, 60)}
"""South, west, north, east. The third lies across ±180. The last is in two places far apart, see PARTS."""
PARTS = {**{k: [ATOMS[k]] for k in (0, 1)}, 2: [(-20, 175, -15, 180), (-20, -180, -15, -178)]}
PARTS |= {3: [(0.0, -60.0, 5.0, -50.0), (55.0, 55.0, 60.0, 60.0)]}
JOINED = {0: (36.0, -10.0, 50.0, 8.0), 1: (-60.0, 100.0, -50.0, 120.0)}
"""Regions of a ranking with a least area."""
CENTRES = {0: (40.0, -5.0), 1: (47.0, 4.0), 2: (-17.5, 178.5), 3: (30.0, 0.0)}


def regions(source: str, image: str, atoms: Sequence[tuple[int, float]], digest: str = "h") -> list[dict[str, Any]]:
    """Rows of `ranked_regions` from (atom, probability), the best first."""
    found, total = [], 0.0
    for rank, (atom, p) in enumerate(atoms, 1):
        total += p
        south, west, north, east = (ATOMS if digest == "h" else JOINED)[atom]
        lat, lon = CENTRES[atom]
        found.append(
            {
                **{"source": source, "image_id": image, "rank": rank, "atom": atom, "overlay_hash": digest},
                **{"probability": p, "area_km2": 100.0 * (atom + 1), "cumulative_probability": total},
                **{"cumulative_area_km2": 1.0, "s2_id": int(s2.cell_ids(lat, lon)), "lat": lat, "lon": lon},
                **{"south": south, "west": west, "north": north, "east": east},
            }
        )
    return found


def summary(run: str, source: str, image: str, **facts: Any) -> dict[str, Any]:
    """A row of `image_summary`."""
    return {
        **{"source": source, "image_id": image, "overlay_hash": "h", "predictions": 1, "regions": 1},
        **{"no_evidence": False, "contradiction": False, "cut_short": False},
        **{"answer_run_id": run, "answer_source": source, "answer_image_id": image},
        **facts,
    }


def write(root: Path) -> None:
    """Two runs of the ranking `example`, one of `joined`, another one in the making, and other tables."""
    spain, france, fiji, far = CENTRES.values()

    def at(place: tuple[float, float]) -> dict[str, float]:
        return {"lat": place[0], "lon": place[1]}

    first = [
        summary(R1, "a", "a1", **at(spain), claim_contradicts=True, claim_p=0.001, area_50_km2=1.0, area_90_km2=2.0),
        summary(R1, "a", "a2", **at(france), claim_contradicts=True, claim_p=0.01, area_50_km2=20.0, area_90_km2=60.0),
        summary(R1, "a", "a3", **at(fiji), area_50_km2=3.0, area_90_km2=5.0),
        summary(R1, "b", "b1", **at(far), claim_contradicts=False, claim_p=0.04, area_50_km2=5.0, area_90_km2=7.0),
        summary(R1, "b", "b2", contradiction=True, regions=0),
        summary(R1, "b", "b3", no_evidence=True, area_50_km2=1e8, area_90_km2=2e8, regions=0, **at(far)),
    ]
    copy = {"answer_run_id": R1, "answer_source": "b", "answer_image_id": "b1"}
    second = [
        summary(R2, "a", "a1", **at(fiji), claim_contradicts=False, claim_p=0.5, area_50_km2=10.0, area_90_km2=40.0),
        summary(R2, "a", "a3", lat=fiji[0] + 0.1, lon=fiji[1], out_of_domain=True, area_50_km2=30.0, area_90_km2=50.0),
        summary(R2, "a", "a4", **at(far), area_50_km2=40.0, area_90_km2=80.0, **copy),
    ]
    rows = [
        *regions("a", "a1", [(0, 0.5), (1, 0.4375), (2, 0.0625)]),
        *regions("a", "a2", [(1, 0.9375), (0, 0.0625)]),
        *regions("a", "a3", [(2, 1.0)]),
        *regions("b", "b1", [(3, 0.75), (2, 0.25)]),
    ]
    mine = {"ranking": "example"}
    commit(root, IMAGE_SUMMARY, {**mine, "run_id": R1}, first)
    commit(root, RANKED_REGIONS, {**mine, "run_id": R1}, rows)
    commit(root, IMAGE_SUMMARY, {**mine, "run_id": R2}, second)
    commit(
        root, RANKED_REGIONS, {**mine, "run_id": R2}, [*regions("a", "a1", [(2, 1.0)]), *regions("a", "a3", [(2, 1.0)])]
    )
    # In the making: everything would be elsewhere.
    half = [summary(R3, "a", "a1", **at(france)), summary(R3, "a", "a9", **at(france))]
    commit(root, IMAGE_SUMMARY, {**mine, "run_id": R3}, half, done=False)
    commit(root, RANKED_REGIONS, {**mine, "run_id": R3}, regions("a", "a1", [(1, 1.0)]), done=False)
    joined = {"ranking": "joined", "run_id": R1}
    commit(root, IMAGE_SUMMARY, joined, [summary(R1, "c", name, **at(spain)) for name in ("c1", "c2")])
    two = [*regions("c", "c1", [(0, 1.0)], "j"), *regions("c", "c2", [(1, 1.0)], "j")]
    commit(root, RANKED_REGIONS, joined, two)
    cells = []
    for atom, boxes in PARTS.items():
        sides = (np.array(side, dtype=float) for side in zip(*boxes, strict=True))
        _, ids, _ = covered(Boxes(*sides, np.full(len(boxes), atom)), LEVEL)
        for cell, one, last in zip(ids, *s2.leaves(ids), strict=True):
            told = {"atom": atom, "overlay_hash": "h", "level": LEVEL, "s2_id": int(cell)}
            cells.append({**told, "first_leaf": int(one), "last_leaf": int(last), "share": 1 / ids.size})
    commit(root, ATOM_CELLS, {"overlay": "world", "run_id": R1}, cells)
    for run, job, part, errors in (
        (R1, "rank_regions", "example", ["bad"] * 3),
        (R2, "rank_regions", "example", ["short", "bad", "bad"]),
        (R1, "ingest_images", "a", ["lost"]),
    ):
        told = [{"stage": "read", "error_class": error, "message": error.upper()} for error in errors]
        commit(root, REJECTS, {"job": job, "part": part, "run_id": run}, told)
    taken = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)
    images = [{"image_id": "a1", "captured_at": taken, "warnings": [{"code": "c", "message": "m"}]}]
    commit(root, IMAGES, {"source": "a.b", "run_id": R1}, [*images, {"image_id": "a2", "warnings": []}])
    place = {"image_id": "x", "source": "a", "lat": 1.0, "lon": 2.0, "s2_id": -5}
    commit(root, labels_table(["halves"]), {"run_id": "1"}, [{**place, "halves": 7}])
    commit(root, labels_table(["halves", "bands"]), {"run_id": "2"}, [{**place, "halves": 7, "bands": 8}])
    point = bytes.fromhex("0101000000000000000000f03f0000000000000040")
    box = {"xmin": 1.0, "ymin": 2.0, "xmax": 1.0, "ymax": 2.0}
    region = {"partition": "p", "partition_hash": "q", "region": 1, "name": "n", "geometry": point, "bbox": box}
    commit(root, REGIONS, {"job": "build_partitions", "run_id": R1}, [region])
