"""A driver may die between any two steps of publishing: readers see whole runs, and a rerun sets all right.

`Killed` is no Exception and nobody cleans up after it, so what it leaves on the disk is what SIGKILL leaves; a few
real SIGKILLs of the job's process are in tests/cluster.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from small_publication import MEASURED, leaves, publish, readable

from geosieve.runtime import files as files_module
from geosieve.runtime.files import Files
from geosieve.tables.attempts import Attempts
from geosieve.tables.publish import Publication

# The calls that change something on the disk; `write_text` is two changes, the part and its renaming.
_CHANGES = (
    (Publication, "_save"),
    *((Files, name) for name in ("write_text", "create_new", "move", "copy", "delete")),
    (files_module, "_write"),
)


class Killed(BaseException):
    """The driver is gone."""


@contextmanager
def killed_at(moment: int) -> Iterator[list[str]]:
    """Die after the n-th change, for -1 never; yields the changes that were made."""
    passed: list[str] = []

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if len(passed) == moment:
                raise Killed(name)
            passed.append(f"{name} {args[-1] if name in ('move', 'copy') else args[1] if name != '_save' else ''}")
            return result

        return change

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _CHANGES:
            patch.setattr(owner, name, wrapped(name, getattr(owner, name)))
        yield passed


def assert_manifests_list_the_leaves(root: Path) -> None:
    for name, leaf in leaves(root).items():
        manifest = json.loads((leaf / "_SUCCESS").read_text())
        data = {p.name: p.stat().st_size for p in leaf.iterdir() if not p.name.startswith((".", "_"))}
        assert {f["name"]: f["bytes"] for f in manifest["files"]} == data, name
        assert manifest["table"] == name


@pytest.fixture(scope="module")
def undisturbed(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("undisturbed")
    assert publish(spark, root)
    assert_manifests_list_the_leaves(root)
    return readable(spark, root)


def _died(spark: SparkSession, root: Path, start: str) -> None:
    """What a driver leaves that dies with all written, or with its side table marked and its main table not."""
    with pytest.MonkeyPatch.context() as patch:
        mark = Publication._mark

        def side_only(self: Publication, uri: str, manifest: Mapping[str, Any]) -> None:
            if start == "all is written" or manifest["table"] == MEASURED.name:
                raise Killed
            mark(self, uri, manifest)

        def killed(*_: Any) -> None:
            raise Killed

        patch.setattr(Publication, "_mark", side_only)
        if start == "all is written":
            patch.setattr(Attempts, "commit", killed)
        with pytest.raises(Killed):
            publish(spark, root)
    assert (leaves(root)["rejects"] / "_SUCCESS").exists() is (start == "a side table is marked")
    assert not (leaves(root)["measured"] / "_SUCCESS").exists()


@pytest.mark.parametrize("start", ["nothing there", "all is written", "a side table is marked"])
def test_driver_killed_between_every_two_changes_of_publishing(
    spark: SparkSession, tmp_path: Path, undisturbed: dict[str, str], start: str
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    if start != "nothing there":
        _died(spark, template, start)
    complete = tmp_path / "complete"
    shutil.copytree(template, complete)
    with killed_at(-1) as changes:
        assert publish(spark, complete) is (start != "a side table is marked")
    assert len(changes) >= {"nothing there": 23, "all is written": 30, "a side table is marked": 6}[start]
    for moment, name in enumerate(changes):
        root = tmp_path / f"{moment}"
        shutil.copytree(template, root)
        with pytest.raises(Killed), killed_at(moment):
            publish(spark, root)
        seen = readable(spark, root)
        assert seen.items() <= undisturbed.items(), f"half a table is readable after a kill at {name}"
        if "measured" in seen:
            assert seen == undisturbed, f"the main table was committed before its side tables at {name}"
        # What is committed is made visible by the next attempt, which then has nothing to do.
        own = "000002" if start == "all is written" else "000001"
        committed = (leaves(root)["measured"] / f"_attempts/{own}.commit").exists()
        assert publish(spark, root) is not committed, name
        assert readable(spark, root) == undisturbed, f"rerun after a kill at {name}"
        assert_manifests_list_the_leaves(root)
        shutil.rmtree(root)
