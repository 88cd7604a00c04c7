"""A predictor as one ONNX graph, as a part of its artefact: `graph` asks it, and so can programs in any language.

It takes `crops`, uint8 (images, crops, height, width, 3) as `Preprocessing.crops_of` gives them, and gives for each
partition, under its name, the logarithms of probabilities of `TrainedPredictor.log_probabilities`, float64
(images, regions). Normal colours, temperatures and the rule over crops are part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geosieve.models.artefact import PredictorFacts
from geosieve.models.network import Network, normal
from geosieve.models.preprocessing import Crops, Preprocessing
from geosieve.models.rules import over_crops
from geosieve.runtime.config import validate
from geosieve.runtime.errors import ConfigError, InputError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_CHECKED = 3
"""Images of noise on which the numbers are compared; another number than that of the export, as it may vary."""
_TOLERANCE = 1e-3


class _Graph(nn.Module):
    """From crops to log-probabilities."""

    def __init__(self, facts: PredictorFacts, network: Network) -> None:
        super().__init__()
        self._facts, self._network = facts, network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        given = self._facts.preprocessing
        logits = self._network(normal(given, crops.flatten(0, 1).permute(0, 3, 1, 2)))
        return tuple(
            over_crops(
                values.double().reshape(-1, given.crops, partition.regions) / partition.temperature,
                self._facts.over_crops,
            )
            for values, partition in zip(logits, self._facts.partitions, strict=True)
        )


def check_packages() -> None:
    """ConfigError if a package is absent that `as_onnx` needs."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise ConfigError(f"{', '.join(absent)} not installed", where="onnx", hint="pip install 'geosieve[train]'")


def as_onnx(facts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bytes:
    """The content of an ONNX file. `facts` and `weights`: as for `write_predictor`.

    Its numbers are compared with those of PyTorch before it is returned. InputError if the backbone cannot be written
    in ONNX, or if the numbers differ.
    """
    import onnxruntime

    told = validate(PredictorFacts, {**facts, "files": {}}, where="facts")
    network = Network(told.backbone, {partition.name: partition.regions for partition in told.partitions})
    network.load_state_dict(dict(weights))
    graph = _Graph(told, network).eval()
    names = [partition.name for partition in told.partitions]
    try:
        program = torch.onnx.export(
            graph,
            (torch.from_numpy(_noise(told.preprocessing, _CHECKED - 1)),),
            input_names=["crops"],
            output_names=names,
            dynamic_shapes={"crops": {0: torch.export.Dim("images")}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # noqa: BLE001 - whatever an exporter makes of somebody's backbone
        raise InputError(f"backbone {told.backbone} cannot be written in ONNX: {str(error)[:300]}") from None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    crops = _noise(told.preprocessing, _CHECKED)
    with torch.inference_mode():
        expected = graph(torch.from_numpy(crops))
    for name, ours, theirs in zip(names, expected, session.run(None, {"crops": crops}), strict=True):
        difference = float(np.abs(ours.numpy() - theirs).max())
        if not difference <= _TOLERANCE:
            raise InputError(f"the ONNX graph of backbone {told.backbone} differs by {difference:.2g} in {name}")
    return content


def _noise(given: Preprocessing, images: int) -> Crops:
    shape = (images, given.crops, given.crop, given.crop, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
