"""What other jobs take of `images`: each image once, and an answer that helps where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ingesting import Ingest
from pyspark.sql import SparkSession

from geosieve.images.read import ImagesInput, read_images
from geosieve.runtime.errors import EXIT_DONE, InputError


def listed(path: Path, rows: str) -> Path:
    path.write_text("id,latitude,longitude\n" + rows)
    return path


def test_of_all_runs_the_latest_row_of_each_source_and_id_is_read(
    ingest: Ingest, spark: SparkSession, tmp_path: Path
) -> None:
    lists = [("one", "z", "a,1,1\nb,2,2\n"), ("two", "z", "a,7,7\n"), ("one", "b", "b,5,5\nc,3,3\n")]
    for name, run_id, rows in lists:  # the later run's id sorts first: the time of the commit decides
        assert ingest(listed(tmp_path / "list.csv", rows), name=name, run_id=run_id)[0] == EXIT_DONE
    root = str(ingest.tables)

    def rows(**chosen: Any) -> tuple[set[tuple[Any, ...]], int, int]:
        images = read_images(spark, ImagesInput(root=root, **chosen))
        found = images.rows.select("source", "image_id", "lat").collect()
        assert len(found) == images.count
        return {tuple(row) for row in found}, images.count, images.older

    two = ("two", "a", 7)
    assert rows(run="all") == ({("one", "a", 1), ("one", "b", 5), ("one", "c", 3), two}, 4, 1)
    assert rows() == ({("one", "b", 5), ("one", "c", 3), two}, 3, 0)
    assert rows(run="z", sources=["one"]) == ({("one", "a", 1), ("one", "b", 2)}, 2, 0)


def test_where_nothing_is_found_the_message_says_what_there_is(
    ingest: Ingest, spark: SparkSession, tmp_path: Path
) -> None:
    ingest(listed(tmp_path / "list.csv", "a,1,1\n"), name="flickr")
    root = str(ingest.tables)
    (tmp_path / "empty" / "labels").mkdir(parents=True)
    (tmp_path / "failed" / "images" / "source=x" / "run_id=r").mkdir(parents=True)
    for chosen, said in [
        ({"root": root, "sources": ["flikr"]}, "there are flickr .*did you mean 'flickr'"),
        ({"root": root, "run": "r9"}, "committed runs: r1"),
        ({"root": root + "s"}, "there is no folder .*did you mean 'tables'"),
        ({"root": f"{root}/images"}, "the folder above `images`"),
        ({"root": str(tmp_path / "empty")}, "this folder holds: labels"),
        ({"root": str(tmp_path / "failed")}, "no _SUCCESS"),
    ]:
        with pytest.raises(InputError, match=said):
            read_images(spark, ImagesInput(**chosen))


def test_roots_and_lists_may_have_glob_characters_in_their_names(
    ingest: Ingest, spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "lists [1] {a,b}"
    folder.mkdir()
    ingest.tables = folder / "tables [x]"
    code, report = ingest(listed(folder / "a[0-9] {x}*.csv", "a,1,1\n"))
    assert code == EXIT_DONE, report["error"]
    code, report = ingest(listed(folder / "a[0-9] {x}*.csv", "b,1,1\n"), run_id="r2")
    assert code == EXIT_DONE, report["error"]
    images = read_images(spark, ImagesInput(root=str(ingest.tables), run="all"))
    assert {row.image_id for row in images.rows.collect()} == {"a", "b"}
