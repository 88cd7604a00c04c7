"""Names that are not there are told with the nearest that are."""

from __future__ import annotations

from pathlib import Path

import pytest

from geosieve.images.read import refuse_unknown_sources
from geosieve.partitions.config import look_up
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.names import advice, did_you_mean
from geosieve.tables.read import Run


def test_a_name_with_a_slip_or_in_another_case_gets_the_nearest() -> None:
    known = ["koppen", "landscan_density", "s2_l10", "Countries"]
    for slip, right in (
        *(("kopen", "koppen"), ("kooppen", "koppen"), ("landscan", "landscan_density")),
        *(("s2_10", "s2_l10"), ("COUNTRIES", "Countries"), ("county", "Countries")),
    ):
        assert did_you_mean(slip, known) == f"did you mean {right!r}?"


def test_a_name_like_no_other_gets_all_and_of_many_the_first() -> None:
    assert advice("xyz", ["b", "a"], "regions") == "regions: a, b"
    assert advice("xyz", [], "regions") == "regions: none"
    many = advice("xyz", (f"{n:04d}" for n in range(5000)), "regions")
    assert many.endswith("0029 and 4970 more")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "koppen.yaml").write_text("kind: s2\nlevel: 3\n")
    (tmp_path / "no.yaml").write_text("kind: s2\nlevel: 4\n")
    return str(tmp_path)


def test_a_partition_is_looked_up_by_its_name_whatever_it_looks_like(folder: str) -> None:
    assert look_up("no", folder).name == "no"


def test_a_folder_of_ones_own_goes_before_the_ready_made_definitions(folder: str) -> None:
    assert look_up("koppen", folder).kind == "s2"
    assert look_up("koppen", None).kind == "classes"
    assert look_up("igbp", folder).kind == "classes"


def test_a_partition_without_a_definition_is_told_with_the_nearest(folder: str) -> None:
    with pytest.raises(ConfigError) as caught:
        look_up("kopen", folder)
    assert folder in caught.value.where and caught.value.hint == "did you mean 'koppen'?"
    with pytest.raises(ConfigError, match=r"there are: countries, .*koppen, .*no, "):
        look_up("elevation_above_sea", folder)


@pytest.mark.parametrize("entry", [True, None, ["koppen"]])
def test_what_is_no_name_is_refused_as_such(folder: str, entry: object) -> None:
    with pytest.raises(ConfigError, match="is no name of a partition"):
        look_up(entry, folder)


def test_a_source_without_images_is_told_with_the_nearest_even_beside_one_that_has_some() -> None:
    runs = [Run(f"t/images/source={name}", {"source": name, "run_id": "r"}, 1, "", ()) for name in ("mp16", "osv5m")]
    refuse_unknown_sources(["osv5m"], runs, "t")
    with pytest.raises(InputError, match="no images of source osv5; there are mp16, osv5m") as caught:
        refuse_unknown_sources(["mp16", "osv5"], runs, "t")
    assert caught.value.hint == "did you mean 'osv5m'?"
