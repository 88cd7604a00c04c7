"""A predictor artefact with a small random network."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import torch

from geosieve.labels.read import REGION_COLUMNS
from geosieve.models.network import Network
from geosieve.models.onnx import as_onnx
from geosieve.models.predictor import write_predictor

PARENTS = [0, 1, 2, 2, 1, 0, 1]


def write_example(
    uri: str, temperatures: tuple[float, float] = (1.0, 1.0), onnx: bool = False, **change: Any
) -> dict[str, str]:
    """Write one that tells the partitions s2_coarse (3 regions) and s2_fine (7). Returns their hashes."""
    heads = {"s2_coarse": 3, "s2_fine": 7}
    hashes = {name: f"hash of {name}" for name in heads}
    torch.manual_seed(5)
    network = Network(change.get("backbone", "test_efficientnet"), heads)
    for head in network.heads:
        torch.nn.init.normal_(head.weight)
    rows = {"s2_coarse": [None] * 3, "s2_fine": PARENTS}
    tables = {
        name: pa.Table.from_pylist(
            [{"region": k, "name": str(k), "parent": p} for k, p in enumerate(of)], REGION_COLUMNS
        )
        for name, of in rows.items()
    }
    facts = {
        "name": "s2_base",
        "backbone": "test_efficientnet",
        "partitions": [
            {"name": name, "hash": hashes[name], "regions": n, "temperature": temperature}
            for (name, n), temperature in zip(heads.items(), temperatures, strict=True)
        ],
        "family": list(heads),
        "preprocessing": {"resize": 40, "crop": 32},
        "shards": "",
        "training": {},
        "code": {"torch": torch.__version__},
        **change,
    }
    weights = network.state_dict()
    write_predictor(uri, facts, weights, tables, "", as_onnx(facts, weights) if onnx else None)
    return hashes
