"""What a user finds in a fresh checkout: files in jobs/ and conf/ that work as they are."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from geosieve.images.sources import IngestConfig
from geosieve.labels.label import LabelConfig
from geosieve.rasters.catalog import CatalogConfig
from geosieve.runtime import errors, jars
from geosieve.runtime.config import load

ROOT = Path(__file__).parents[2]
MODELS = {"rasters": CatalogConfig, "sources": IngestConfig}


@pytest.mark.parametrize("path", sorted(ROOT.glob("conf/rasters/*")) + sorted(ROOT.glob("conf/sources/*")), ids=str)
def test_a_configuration_in_conf_is_valid(path: Path) -> None:
    load(MODELS[path.parent.name], path)


def test_the_labelling_configuration_takes_every_ready_made_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names = sorted(path.stem for path in Path("conf/partitions").glob("*.yaml"))
    config = load(LabelConfig, "conf/label_attributes.yaml", [f"partitions={names}"])
    assert [definition.name for definition in config.partitions] == names


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_a_job_shows_its_options_and_exit_codes(job: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "jobs" / job, "--help"], capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--config", "--set", "--run-id", "--dry-run", "--local"))
    assert all(str(code) in done.stdout for code in (errors.EXIT_NOTHING_TO_DO, errors.EXIT_RETRYABLE))


def test_sedonas_jars_and_python_package_are_of_one_version() -> None:
    assert jars.SPATIAL[0].version == version("apache-sedona")
