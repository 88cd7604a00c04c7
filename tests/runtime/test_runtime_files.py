"""Small operations on files through Hadoop, here on a local disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from geosieve.runtime.files import Files


@pytest.fixture
def files(spark: SparkSession) -> Files:
    return Files(spark)


def test_text_is_read_as_it_was_written_and_replaced_whole(files: Files, tmp_path: Path) -> None:
    uri = str(tmp_path / "new folder/run_id=a b/_SUCCESS")
    for text in ("Åre — “π”\n" * 1000, "short", ""):
        files.write_text(uri, text)
        assert files.read_text(uri) == text
        assert Path(uri).read_text() == text
    assert not [path.name for path in Path(uri).parent.iterdir() if path.name.endswith(".part")]


def test_a_folder_is_listed_by_name_and_a_missing_one_is_empty(files: Files, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("12345")
    found = [(entry.name, entry.size, entry.is_folder) for entry in files.list(str(tmp_path))]
    assert [(name, folder) for name, _, folder in found] == [("a.txt", False), ("b", True)]
    assert found[0][1] == 5
    assert files.list(str(tmp_path / "absent")) == []


def test_a_walk_leaves_hidden_files_and_folders_out(files: Files, tmp_path: Path) -> None:
    for name in ("x/1.tif", "x/y/2.tif", "_temporary/3.tif", "x/.4.tif", "x/_5.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [entry.name for entry in files.walk(str(tmp_path))] == ["1.tif", "2.tif"]


def test_a_glob_gives_what_matches_and_nothing_where_nothing_does(files: Files, tmp_path: Path) -> None:
    for name in ("b.tif", "a.tif", "c.txt"):
        (tmp_path / name).touch()
    assert [entry.name for entry in files.glob(f"{tmp_path}/*.tif")] == ["a.tif", "b.tif"]
    assert files.glob(f"{tmp_path}/*.png") == []


def test_deleting_takes_whole_folders_and_does_not_mind_missing_ones(files: Files, tmp_path: Path) -> None:
    (tmp_path / "x/y").mkdir(parents=True)
    (tmp_path / "x/y/file").touch()
    files.delete(str(tmp_path / "x"))
    files.delete(str(tmp_path / "x"))
    assert not files.exists(str(tmp_path / "x"))


@pytest.mark.parametrize(
    "name", ["a; isDirectory=true; length=7;", "x{path=y", "}, FileStatus{path=z", "two\nlines", "é 5%"]
)
def test_a_listing_takes_every_name_as_it_is(files: Files, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("123")
    (tmp_path / "plain").write_text("12")
    (tmp_path / "folder").mkdir()
    found = {(entry.name, entry.size, entry.is_folder) for entry in files.list(str(tmp_path))}
    assert found == {(name, 3, False), ("plain", 2, False), ("folder", 0, True)}
    assert files.read_text(next(entry.uri for entry in files.list(str(tmp_path)) if entry.name == name)) == "123"


def test_of_many_who_write_a_new_file_one_succeeds(files: Files, tmp_path: Path) -> None:
    for k in range(20):
        uri = str(tmp_path / f"folder/{k}")
        with ThreadPoolExecutor(8) as pool:
            won = [
                text
                for text, done in pool.map(lambda n, uri=uri: (f"{n}", files.create_new(uri, f"{n}")), range(8))
                if done
            ]
        assert len(won) == 1
        assert files.read_text(uri) == won[0]
    assert len(list((tmp_path / "folder").iterdir())) == 20
