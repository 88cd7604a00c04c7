"""Predictor artefacts: loaded, they give the numbers of the network; changed or other ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from geosieve.labels.read import REGION_COLUMNS
from geosieve.models.artefact import FACTS, WEIGHTS, regions_file
from geosieve.models.network import Network
from geosieve.models.predictor import TrainedPredictor, write_predictor
from geosieve.models.preprocessing import Preprocessing
from geosieve.runtime.errors import ConfigError, InputError

HEADS = {"coarse": 3, "fine": 7}
PARENTS = [0, 1, 2, 2, 1, 0, 1]
SEES = Preprocessing(resize=40, crop=32)


def regions(n: int, parents: list[int] | None = None) -> pa.Table:
    rows = [{"region": k, "name": f"r{k}", "parent": parents[k] if parents else None} for k in range(n)]
    return pa.Table.from_pylist(rows, REGION_COLUMNS)


def facts(**change: Any) -> dict[str, Any]:
    partitions = [
        {"name": name, "hash": f"hash of {name}", "regions": n, "temperature": 1.0 + k}
        for k, (name, n) in enumerate(HEADS.items())
    ]
    return {
        "name": "example",
        "backbone": "test_efficientnet",
        "partitions": partitions,
        "family": ["coarse", "fine"],
        "preprocessing": SEES,
        "shards": "file:/shards",
        "training": {},
        "code": {},
        **change,
    }


def network() -> Network:
    torch.manual_seed(5)
    found = Network("test_efficientnet", HEADS)
    for head in found.heads:
        torch.nn.init.normal_(head.weight)
    return found.eval()


def write(folder: Path, **change: Any) -> str:
    tables = {"coarse": regions(3), "fine": regions(7, PARENTS)}
    write_predictor(str(folder), facts(**change), network().state_dict(), tables, "# card")
    return str(folder)


def pictures(n: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (50 + 9 * (k % 5), 70 - 5 * (k % 5), 3), dtype=np.uint8) for k in range(n)]


def test_log_probabilities_are_those_of_the_network_at_its_temperature(tmp_path: Path) -> None:
    found = TrainedPredictor.load(write(tmp_path)).log_probabilities(pictures())
    for k, picture in enumerate(pictures()):
        height, width = picture.shape[:2]
        scale = 40 / min(height, width)
        size = (max(40, round(width * scale)), max(40, round(height * scale)))
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), float)
        top, left = (size[1] - 32) // 2, (size[0] - 32) // 2
        crop = small[top : top + 32, left : left + 32] / 255
        pixels = torch.tensor((crop - SEES.mean) / SEES.std, dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.inference_mode():
            logits = network()(pixels)
        for name, values, temperature in zip(HEADS, logits, (1.0, 2.0), strict=True):
            expected = (values.double()[0] / temperature).log_softmax(0).numpy()
            assert found[name][k] == pytest.approx(expected, abs=1e-4)
            assert np.exp(found[name][k]).sum() == pytest.approx(1, abs=1e-12)


def test_the_answer_does_not_depend_on_the_other_images(tmp_path: Path) -> None:
    predictor = TrainedPredictor.load(write(tmp_path))
    together = predictor.log_probabilities(pictures(70))["fine"]
    alone = predictor.log_probabilities(pictures(70)[66:67])["fine"]
    assert together[66] == pytest.approx(alone[0], abs=1e-4)
    assert predictor.log_probabilities([])["coarse"].shape == (0, 3)


@pytest.mark.parametrize("crops", [5, 10])
def test_the_product_along_ancestors_of_several_crops(tmp_path: Path, crops: int) -> None:
    sees = Preprocessing(resize=40, crop=32, crops=crops)  # type: ignore[arg-type]
    found = TrainedPredictor.load(write(tmp_path, preprocessing=sees)).hierarchical(pictures())
    for k, picture in enumerate(pictures()):
        views = torch.from_numpy(sees.crops_of(picture)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (sees.mean, sees.std))
        with torch.inference_mode():
            coarse, fine = (part.double().softmax(1).max(0).values for part in network()((views - mean) / std))
        score = fine * coarse[PARENTS]
        assert np.exp(found[k]) == pytest.approx((score / score.sum()).numpy(), abs=1e-4)


def test_crops_are_where_they_should_be() -> None:
    image = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    five = Preprocessing(resize=40, crop=32, crops=5).crops_of(image)
    starts = [(4, 14), (0, 0), (0, 28), (8, 0), (8, 28)]
    assert all((five[k] == image[y : y + 32, x : x + 32]).all() for k, (y, x) in enumerate(starts))
    ten = Preprocessing(resize=40, crop=32, crops=10).crops_of(image)
    assert (ten[:5] == five).all() and (ten[5:] == five[:, :, ::-1]).all()
    with pytest.raises(InputError, match="uint8 of shape"):
        Preprocessing().crops_of(image[:, :, 0])


def test_another_version_of_a_partition_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    assert TrainedPredictor.load(str(tmp_path), hashes={"fine": "hash of fine", "other": "x"}).facts.name == "example"
    with pytest.raises(InputError, match="another version of partition fine"):
        TrainedPredictor.load(str(tmp_path), hashes={"fine": "another"})


@pytest.mark.parametrize("name", [WEIGHTS, regions_file("fine"), "model_card.md"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="another SHA-256"):
        TrainedPredictor.load(str(tmp_path))


def test_a_missing_file_a_later_version_and_no_predictor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        TrainedPredictor.load(str(tmp_path / "absent"))
    write(tmp_path)
    described = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps({**described, "version": 2}))
    with pytest.raises(ConfigError, match="later geosieve wrote version 2"):
        TrainedPredictor.load(str(tmp_path))
    for other in ("[]", "not JSON", json.dumps({**described, "files": {"../../etc/passwd": "0"}})):
        (tmp_path / FACTS).write_text(other)
        with pytest.raises(InputError):
            TrainedPredictor.load(str(tmp_path))
    (tmp_path / FACTS).write_text(json.dumps({**described, "backbone": "resnetv2_50x1_bitt"}))
    with pytest.raises(ConfigError, match="resnetv2_50x1_bit"):
        TrainedPredictor.load(str(tmp_path))


def test_weights_that_are_not_numbers_are_not_written(tmp_path: Path) -> None:
    weights = network().state_dict()
    weights["heads.0.bias"][1] = torch.inf
    with pytest.raises(InputError, match=r"not finite: heads\.0\.bias"):
        write_predictor(str(tmp_path), facts(), weights, {"coarse": regions(3), "fine": regions(7, PARENTS)}, "")
    assert not list(tmp_path.iterdir())


def test_regions_travel_with_the_predictor(tmp_path: Path) -> None:
    predictor = TrainedPredictor.load(write(tmp_path))
    assert predictor.regions["fine"].equals(regions(7, PARENTS))
    assert pq.read_table(tmp_path / regions_file("coarse")).column("name").to_pylist() == ["r0", "r1", "r2"]
