"""What a user finds in a fresh checkout: files in jobs/ and conf/ that work as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from geosieve.evaluation.config import EvaluateConfig
from geosieve.images.sources import IngestConfig
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.config import FitEnsembleConfig
from geosieve.inference.ranking_config import RankConfig
from geosieve.job.publishing import JobConfig
from geosieve.labels.label import LabelConfig
from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.flickr import FlickrConfig
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overlay.build import OverlayConfig
from geosieve.overlay.cells import CellsConfig
from geosieve.partitions.building.job import BuildConfig
from geosieve.partitions.config import READY_MADE
from geosieve.rasters.catalog import CatalogConfig
from geosieve.reporting.archive_config import ReportConfig
from geosieve.reporting.export_config import ExportConfig
from geosieve.reporting.pairs_config import ReportPairsConfig
from geosieve.runtime import errors, jars
from geosieve.runtime.config import load
from geosieve.splits.config import SplitConfig
from geosieve.sql.config import CompactConfig, RegisterConfig, RetireConfig
from geosieve.training.config import TrainingSetConfig
from geosieve.training.train_config import TrainConfig

ROOT = Path(__file__).parents[2]
MODELS = {
    "atom_cells": CellsConfig,
    "build_overlay": OverlayConfig,
    "build_pairs": PairsConfig,
    "build_partitions": BuildConfig,
    "build_splits": SplitConfig,
    "catalog_rasters": CatalogConfig,
    "compact": CompactConfig,
    "cut_chips": ChipsConfig,
    "evaluate": EvaluateConfig,
    "export_regions": ExportConfig,
    "harvest_flickr": FlickrConfig,
    "ingest_images": IngestConfig,
    "label_attributes": LabelConfig,
    "fit_ensemble": FitEnsembleConfig,
    "geolocate_archive": GeolocateConfig,
    "prepare_strips": StripsConfig,
    "prepare_training_set": TrainingSetConfig,
    "rank_regions": RankConfig,
    "register_tables": RegisterConfig,
    "report_archive": ReportConfig,
    "report_pairs": ReportPairsConfig,
    "retire_runs": RetireConfig,
    "train_predictor": TrainConfig,
}


def test_every_job_has_a_folder_of_configurations() -> None:
    assert {path.name for path in (ROOT / "conf").iterdir()} == set(MODELS)
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(MODELS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("conf/*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_configuration_in_conf_is_valid_from_any_directory(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(MODELS[path.parent.name], path)
    assert not isinstance(config, JobConfig) or config.output == "tables"


@pytest.mark.parametrize("path", sorted(ROOT.glob("conf/*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_saved_configuration_says_the_same_again(path: Path, tmp_path: Path) -> None:
    config = load(MODELS[path.parent.name], path)
    saved = tmp_path / "_config.json"
    saved.write_text(config.model_dump_json(indent=1))
    assert json.loads(saved.read_text())["version"] == 1
    assert load(MODELS[path.parent.name], saved) == config


def test_a_configuration_of_a_later_version_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="a later geosieve wrote version 999"):
        load(CatalogConfig, ROOT / "conf/catalog_rasters/koppen.yaml", ["version=999"])


def test_every_ready_made_partition_is_found_by_its_name() -> None:
    names = sorted(path.stem for path in READY_MADE.glob("*.yaml"))
    config = load(LabelConfig, ROOT / "conf/label_attributes/demo.yaml", [f"partitions={names}"])
    assert [definition.name for definition in config.partitions] == names


@pytest.mark.parametrize("job", sorted(path.name for path in (ROOT / "jobs").glob("*.py")))
def test_a_job_shows_its_options_and_exit_codes(job: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "jobs" / job, "--help"], capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--config", "--set", "--run-id", "--dry-run", "--local"))
    assert all(str(code) in done.stdout for code in (errors.EXIT_NOTHING_TO_DO, errors.EXIT_RETRYABLE))


def test_sedonas_jars_and_python_package_are_of_one_version() -> None:
    assert jars.SPATIAL[0].version == version("apache-sedona")
