"""A predictor as an ONNX graph: ONNX Runtime gives the numbers of PyTorch, without it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_predictor import write_example

from geosieve.inference.image_predictors import Recipe
from geosieve.models import artefact
from geosieve.models.artefact import FACTS, GRAPH
from geosieve.models.graph import GraphPredictor
from geosieve.models.predictor import TrainedPredictor
from geosieve.runtime.errors import InputError


def pictures(n: int) -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (50 + k, 70 - k, 3), dtype=np.uint8) for k in range(n)]


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
    uri, images = str(tmp_path), pictures(19)  # more than it takes at once, and no multiple
    write_example(uri, temperatures=(0.7, 1.9), onnx=True, **change)
    graph = GraphPredictor.load(uri, threads=2)
    found, expected = graph.log_probabilities(images), TrainedPredictor.load(uri).log_probabilities(images)
    assert list(found) == list(expected) == ["s2_coarse", "s2_fine"]
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-4)
        assert np.ptp(values, axis=0).max() > 1e-3  # the images differ, so that equal numbers say something
    assert {name: values.shape for name, values in graph.log_probabilities([]).items()} == {
        "s2_coarse": (0, 3),
        "s2_fine": (0, 7),
    }


def replace_graph(folder: Path, content: bytes) -> None:
    """As somebody would who writes the artefact anew."""
    (folder / GRAPH).write_bytes(content)
    told = json.loads((folder / FACTS).read_text())
    told["files"][GRAPH] = hashlib.sha256(content).hexdigest()
    (folder / FACTS).write_text(json.dumps(told))


def reading_a_file(path: str) -> bytes:
    """A graph whose constant is the content of another file."""
    constant = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": path, "length": "32"}.items():
        entry = constant.external_data.add()
        entry.key, entry.value = key, value
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in ("crops", "s2_coarse")]
    node = helper.make_node("Add", ["crops", "w"], ["s2_coarse"])
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [constant]), ir_version=8)
    return bytes(model.SerializeToString())


def test_a_graph_that_is_not_the_predictors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "a")
    write_example(uri, onnx=True)
    content = (tmp_path / "a" / GRAPH).read_bytes()
    (tmp_path / "a" / GRAPH).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="another SHA-256"):
        GraphPredictor.load(uri, threads=1)
    replace_graph(tmp_path / "a", content[: len(content) // 2])
    with pytest.raises(InputError, match="no ONNX graph that can be run"):
        GraphPredictor.load(uri, threads=1)
    other = onnx.load_model_from_string(content)
    del other.graph.output[1]
    replace_graph(tmp_path / "a", other.SerializeToString())
    with pytest.raises(InputError, match="not the graph of this predictor"):
        GraphPredictor.load(uri, threads=1)
    # A graph may name files that hold its constants: a way to read what is on a worker.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(32))
    for path in ("secret", str(tmp_path / "secret"), "../secret"):
        replace_graph(tmp_path / "a", reading_a_file(path))
        with pytest.raises(InputError, match="no ONNX graph that can be run"):
            GraphPredictor.load(uri, threads=1)


def test_without_a_graph_it_is_told(tmp_path: Path) -> None:
    write_example(str(tmp_path))
    with pytest.raises(InputError, match=r"has no network\.onnx"):
        GraphPredictor.load(str(tmp_path), threads=1)


def test_workers_that_scan_need_no_pytorch(tmp_path: Path) -> None:
    write_example(str(tmp_path), onnx=True)
    script = (
        "import sys; import geosieve.inference.looking; from geosieve.inference.image_predictors import Recipe; "
        f"Recipe({str(tmp_path)!r}).make('cpu', 1); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("with_graph", [True, False])
def test_its_description_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_graph: bool) -> None:
    write_example(str(tmp_path), onnx=with_graph)
    asked: list[str] = []
    read = artefact.read_file

    def counted(uri: str) -> bytes:
        asked.append(uri)
        return read(uri)

    monkeypatch.setattr(artefact, "read_file", counted)
    predictor = Recipe(str(tmp_path)).make("cpu", 1)
    assert predictor.digest == hashlib.sha256((tmp_path / FACTS).read_bytes()).hexdigest()
    assert asked.count(f"{tmp_path}/{FACTS}") == 1
