"""Asking predictor artefacts with ONNX Runtime on CPUs, without PyTorch: several times as fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geosieve.geo.arrays import F8
from geosieve.models.artefact import GRAPH, PredictorFacts, read_facts, read_part
from geosieve.runtime.errors import ConfigError, InputError

_CROPS_AT_ONCE = 16  # more is not faster, and takes more memory


@dataclass(frozen=True)
class GraphPredictor:
    """A predictor that was loaded: from images to log-probabilities over the regions of its partitions.

    `digest`: SHA-256 of its `predictor.json`, in hex.
    """

    facts: PredictorFacts
    digest: str
    session: Any

    @classmethod
    def load(cls, uri: str, threads: int, described: tuple[PredictorFacts, str] | None = None) -> GraphPredictor:
        """Load an artefact from the folder `uri`, on any store. `threads`: number that the network uses.

        `described`: what `read_facts` has told of it.

        InputError if a file is missing or is not the one that was written (by its SHA-256), or if it is no graph of
        such a predictor. ConfigError if `predictor.json` is of a later version.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError("onnxruntime is not installed", hint="pip install 'geosieve[scan]'") from None
        facts, digest = described or read_facts(uri)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # errors are raised
        content = read_part(uri, facts, GRAPH)
        try:
            # It refuses content that names other files.
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its exceptions have no common class
            raise InputError(f"no ONNX graph that can be run: {str(error)[:300]}", where=f"{uri}/{GRAPH}") from None
        named = [output.name for output in session.get_outputs()]
        if [given.name for given in session.get_inputs()] != ["crops"] or named != [p.name for p in facts.partitions]:
            raise InputError("not the graph of this predictor", where=f"{uri}/{GRAPH}")
        return cls(facts, digest, session)

    def log_probabilities(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, F8]:
        """As `TrainedPredictor.log_probabilities` gives them."""
        given, names = self.facts.preprocessing, [partition.name for partition in self.facts.partitions]
        if not images:
            return {partition.name: np.zeros((0, partition.regions)) for partition in self.facts.partitions}
        many = max(1, _CROPS_AT_ONCE // given.crops)
        parts = [
            self.session.run(names, {"crops": np.stack([given.crops_of(image) for image in images[at : at + many]])})
            for at in range(0, len(images), many)
        ]
        return {
            name: np.concatenate(of_partition)
            for name, of_partition in zip(names, zip(*parts, strict=True), strict=True)
        }
