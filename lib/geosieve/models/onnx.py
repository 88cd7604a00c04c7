"""A predictor as one ONNX file, for programs without PyTorch: `python -m geosieve.models.onnx ARTEFACT FILE`.

The graph takes `crops`, uint8 (images, crops, height, width, 3) as `Preprocessing.crops_of` gives them, and gives for
each partition, under its name, the logarithms of probabilities of `TrainedPredictor.log_probabilities`, float64
(images, regions). Normal colours, temperatures and the rule over crops are part of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geosieve.models.predictor import TrainedPredictor
from geosieve.models.preprocessing import Crops
from geosieve.models.rules import over_crops
from geosieve.runtime.errors import ConfigError, GeosieveError, InputError
from geosieve.runtime.store import write_file

_CHECKED = 3
"""Images of noise on which the numbers are compared; another number than that of the export, as it may vary."""
_TOLERANCE = 1e-3


class _Graph(nn.Module):
    """From crops to log-probabilities."""

    def __init__(self, predictor: TrainedPredictor) -> None:
        super().__init__()
        self._facts, self._network = predictor.facts, predictor.network

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        given = self._facts.preprocessing
        logits = self._network(given.normal(crops.flatten(0, 1).permute(0, 3, 1, 2)))
        return tuple(
            over_crops(
                values.double().reshape(-1, given.crops, partition.regions) / partition.temperature,
                self._facts.over_crops,
            )
            for values, partition in zip(logits, self._facts.partitions, strict=True)
        )


def as_onnx(predictor: TrainedPredictor) -> bytes:
    """The content of an ONNX file. `predictor`: on the CPU.

    Its numbers are compared with those of PyTorch before it is returned. ConfigError without the packages of the extra
    `onnx`; InputError if the backbone cannot be written in ONNX, or if the numbers differ.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint="pip install 'geosieve[onnx]'") from None
    graph, facts = _Graph(predictor).eval(), predictor.facts
    names = [partition.name for partition in facts.partitions]
    try:
        program = torch.onnx.export(
            graph,
            (torch.from_numpy(_noise(predictor, _CHECKED - 1)),),
            input_names=["crops"],
            output_names=names,
            dynamic_shapes={"crops": {0: torch.export.Dim("images")}},
            dynamo=True,
            verbose=False,
        )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise InputError(f"backbone {facts.backbone} cannot be written in ONNX: {str(error)[:300]}") from None
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    crops = _noise(predictor, _CHECKED)
    with torch.inference_mode():
        expected = graph(torch.from_numpy(crops))
    for name, ours, theirs in zip(names, expected, session.run(None, {"crops": crops}), strict=True):
        difference = float(np.abs(ours.numpy() - theirs).max())
        if not difference <= _TOLERANCE:
            raise InputError(f"the ONNX graph of backbone {facts.backbone} differs by {difference:.2g} in {name}")
    return content


def _noise(predictor: TrainedPredictor, images: int) -> Crops:
    given = predictor.facts.preprocessing
    shape = (images, given.crops, given.crop, given.crop, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def main(arguments: list[str]) -> int:
    """Write the ONNX file of an artefact. Returns the exit code."""
    if len(arguments) != 2:
        print(f"usage: python -m geosieve.models.onnx ARTEFACT FILE\n\n{__doc__}", file=sys.stderr)
        return ConfigError.exit_code
    uri, target = arguments
    try:
        write_file(target, as_onnx(TrainedPredictor.load(uri)))
    except GeosieveError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{target}: {Path(target).name} of {uri}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
