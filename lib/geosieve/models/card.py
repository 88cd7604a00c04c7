"""The model card of a predictor: what it is, how good, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """# {name}

A network `{backbone}` (timm) with one linear head per partition. From one image it gives probabilities over the regions
of:

| partition | regions | validation images | log loss | top 1 | top 5 | temperature | calibration error |
|---|---|---|---|---|---|---|---|
{rows}

Log losses (natural logarithm) and the calibration error are those at the temperature, which was fitted on the same
validation images.

Trained on {shards}. The whole configuration is in `predictor.json`.

## Limits

It has learned what its training photographs show. Places, seasons and cameras that they lack are told badly, and with
more confidence than they deserve. Where a photograph was taken can endanger whoever took it, or is in it: do not use it
to find or follow people.
"""


def model_card(facts: Mapping[str, Any]) -> str:
    """A page in Markdown. `facts`: as for `write_predictor`."""
    rows = "\n".join(
        f"| {p['name']} | {p['regions']:,} | {p['metrics']['images']:,} | {p['metrics']['log_loss']:.4f} | "
        f"{p['metrics']['top1']:.4f} | {p['metrics']['top5']:.4f} | {p['temperature']:.3f} | "
        f"{p['metrics']['calibration_error']:.4f} |"
        for p in facts["partitions"]
    )
    return _CARD.format(name=facts["name"], backbone=facts["backbone"], shards=facts["shards"], rows=rows)
