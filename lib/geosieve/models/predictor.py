"""Writing predictor artefacts, and asking them with PyTorch. `artefact` says what they consist of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from geosieve.geo.arrays import F8
from geosieve.models.artefact import CARD, FACTS, GRAPH, WEIGHTS, PredictorFacts, read_facts, read_part, regions_file
from geosieve.models.network import Network, normal
from geosieve.models.preprocessing import OverCrops
from geosieve.models.rules import Along, along_ancestors, over_crops
from geosieve.runtime.config import validate
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.store import parquet_bytes, write_file

_IMAGES_AT_ONCE = 64


def write_predictor(
    uri: str,
    facts: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    regions: Mapping[str, pa.Table],
    card: str,
    graph: bytes | None = None,
) -> tuple[PredictorFacts, str]:
    """Write an artefact into the folder `uri`.

    `facts`: the values of PredictorFacts but `files`. `graph`: of `as_onnx`. Returns what `predictor.json` says and its
    SHA-256 in hex.

    InputError if a weight is not finite, or the number of a partition's regions differs from its table's.
    """
    _refuse_broken(weights, uri)
    contents = {WEIGHTS: save({name: value.contiguous() for name, value in weights.items()}), CARD: card.encode()}
    contents |= {regions_file(name): parquet_bytes(table) for name, table in regions.items()}
    if graph is not None:
        contents[GRAPH] = graph
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    found = validate(PredictorFacts, {**facts, "files": digests}, where=f"{uri}/{FACTS}")
    for partition in found.partitions:
        if len(regions[partition.name]) != partition.regions:
            raise InputError(
                f"{len(regions[partition.name])} regions for {partition.regions} of {partition.name}", where=uri
            )
    for name, content in contents.items():
        write_file(f"{uri}/{name}", content)
    described = found.model_dump_json(indent=1).encode()
    write_file(f"{uri}/{FACTS}", described)
    return found, hashlib.sha256(described).hexdigest()


def _refuse_broken(weights: Mapping[str, torch.Tensor], uri: str) -> None:
    broken = [name for name, value in weights.items() if not torch.isfinite(value.float()).all()]
    if broken:
        raise InputError(f"weights that are not finite: {', '.join(broken[:8])}", where=uri)


@dataclass(frozen=True)
class TrainedPredictor:
    """A predictor that was loaded: from images to log-probabilities over the regions of its partitions.

    `digest`: SHA-256 of its `predictor.json`, in hex.
    """

    facts: PredictorFacts
    digest: str
    network: Network
    device: torch.device
    regions: Mapping[str, pa.Table]

    @classmethod
    def load(
        cls,
        uri: str,
        device: str = "cpu",
        hashes: Mapping[str, str] | None = None,
        described: tuple[PredictorFacts, str] | None = None,
    ) -> TrainedPredictor:
        """Load an artefact from the folder `uri`, on any store.

        `hashes`: the hashes of partitions, by name, that the predictor is to be used with. `described`: what
        `read_facts` has told of it.

        InputError if a file is missing or is not the one that was written (by its SHA-256), if the weights do not fit
        the network or are not finite, or if a partition has another hash. ConfigError if `predictor.json` is of a later
        version, or `timm` lacks the backbone.
        """
        facts, digest = described or read_facts(uri)
        for partition in facts.partitions:
            wanted = (hashes or {}).get(partition.name, partition.hash)
            if wanted != partition.hash:
                raise InputError(
                    f"the predictor has learned another version of partition {partition.name}: hash "
                    f"{partition.hash[:12]}, not {wanted[:12]}",
                    where=uri,
                    hint="train it on labels of this version, or use the version that it has learned",
                )
        contents = {name: read_part(uri, facts, name) for name in facts.files if name != GRAPH}
        network = Network(facts.backbone, {partition.name: partition.regions for partition in facts.partitions})
        try:
            weights = load(contents[WEIGHTS])
            _refuse_broken(weights, uri)
            network.load_state_dict(weights)
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise InputError(
                f"the weights do not fit the network: {str(error)[:300]}", where=f"{uri}/{WEIGHTS}"
            ) from None
        network.on(torch.device(device)).eval()
        regions = {
            partition.name: pq.read_table(pa.BufferReader(contents[regions_file(partition.name)]))
            for partition in facts.partitions
        }
        return cls(facts, digest, network, torch.device(device), regions)

    def log_probabilities(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, F8]:
        """Natural logarithms of probabilities by partition, (images, regions). Each row's probabilities sum to one.

        `images`: upright, in sRGB, (height, width, 3), of any sizes.
        """
        found = [over_crops(logits, self.facts.over_crops) for logits in self._calibrated(images)]
        return {p.name: part.cpu().numpy() for p, part in zip(self.facts.partitions, found, strict=True)}

    def hierarchical(
        self, images: Sequence[NDArray[np.uint8]], crops: OverCrops = "max", rule: Along = "product"
    ) -> F8:
        """Log-probabilities over the regions of the finest partition of the family, (images, regions).

        By default f* of GeoEstimation. Other rules: see `rules`. ConfigError if the predictor has no family.
        """
        if not self.facts.family:
            raise ConfigError(f"predictor {self.facts.name} has no family of partitions", hint="train it with family")
        names = [partition.name for partition in self.facts.partitions]
        logits = self._logits(images)
        chain = [logits[names.index(name)].double() for name in self.facts.family]
        parents = [torch.tensor(self._parents(name), device=self.device) for name in self.facts.family[1:]]
        return along_ancestors(chain, parents, crops, rule).cpu().numpy()

    def _parents(self, name: str) -> list[int]:
        column = self.regions[name].column("parent")
        return [-1 if parent is None else parent for parent in column.to_pylist()]

    def _calibrated(self, images: Sequence[NDArray[np.uint8]]) -> list[torch.Tensor]:
        return [
            logits.double() / partition.temperature
            for partition, logits in zip(self.facts.partitions, self._logits(images), strict=True)
        ]

    def _logits(self, images: Sequence[NDArray[np.uint8]]) -> list[torch.Tensor]:
        """Logits of each partition, (images, crops, regions)."""
        parts = [self._of_some(images[at : at + _IMAGES_AT_ONCE]) for at in range(0, len(images), _IMAGES_AT_ONCE)]
        if not parts:
            crops = self.facts.preprocessing.crops
            return [torch.zeros(0, crops, partition.regions) for partition in self.facts.partitions]
        return [torch.cat(of_partition) for of_partition in zip(*parts, strict=True)]

    def _of_some(self, images: Sequence[NDArray[np.uint8]]) -> list[torch.Tensor]:
        given = self.facts.preprocessing
        crops = np.stack([given.crops_of(image) for image in images])
        pixels = torch.from_numpy(crops).to(self.device).flatten(0, 1).permute(0, 3, 1, 2)
        with torch.inference_mode():
            found = self.network(normal(given, pixels))
        return [logits.float().reshape(len(images), given.crops, -1) for logits in found]
