"""A predictor as an ONNX file: onnxruntime gives the numbers of PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from small_predictor import write_example

from geosieve.models.onnx import main
from geosieve.models.predictor import TrainedPredictor
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"preprocessing": {"resize": 40, "crop": 32, "crops": 5}, "over_crops": "max"},
        {"preprocessing": {"resize": 40, "crop": 32, "crops": 10}, "over_crops": "mean_of_logits"},
        {"backbone": "test_resnet"},
        {"backbone": "test_vit", "preprocessing": {"resize": 160, "crop": 160}},
    ],
)
def test_onnxruntime_gives_the_same_numbers(tmp_path: Path, change: dict[str, Any]) -> None:
    uri, target = str(tmp_path / "artefact"), tmp_path / "predictor.onnx"
    write_example(uri, temperatures=(0.7, 1.9), **change)
    assert main([uri, str(target)]) == EXIT_DONE
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (50 + 9 * k, 70 - 5 * k, 3), dtype=np.uint8) for k in range(5)]
    predictor = TrainedPredictor.load(uri)
    crops = np.stack([predictor.facts.preprocessing.crops_of(image) for image in images])
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"crops": crops}), strict=True))
    expected = predictor.log_probabilities(images)
    assert list(found) == list(expected) == ["s2_coarse", "s2_fine"]
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-4)
        assert np.ptp(values, axis=0).max() > 1e-3  # the images differ, so that equal numbers say something


def test_what_cannot_be_exported_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent"), str(tmp_path / "x.onnx")]) == EXIT_BAD_INPUT
    assert "no such file" in capsys.readouterr().err
    assert main([]) == EXIT_BAD_CONFIG
    assert not list(tmp_path.iterdir())
