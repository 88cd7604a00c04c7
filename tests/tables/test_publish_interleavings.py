"""Two attempts with one run id, stepped through their operations on a store in many orders.

Every order in which one attempt stops once and goes on after some steps of the other is tried; orders with more stops,
deaths and a third attempt are drawn with a seed. The store is in memory, and each of its operations is one step.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_publication import CONFIG, DIGEST, MEASURED

from geosieve.runtime.errors import RetryableError
from geosieve.runtime.files import FileInfo
from geosieve.tables import publish
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schema import Table
from geosieve.tables.schemas import REJECTS

ROOT = "memory:/root"
MAIN, SIDE = f"{ROOT}/measured/source=lab/run_id=r1", f"{ROOT}/rejects/job=measure/part=all/run_id=r1"
ROWS, REJECTED = 40, 3
FOR_EVER = 1 << 30


class Killed(BaseException):
    """The driver is gone: nobody cleans up after it."""


class Store:
    """Files by URI, and the rule that no marker ever lists what is not there."""

    def __init__(self, in_one_request: bool) -> None:
        self.content: dict[str, bytes] = {}
        self.in_one_request = in_one_request  # whether "create unless there" is one step, as it is not on S3
        self.flying: list[tuple[str, bytes]] = []  # what was not there when its writer looked, and is written soon
        self.broken: list[str] = []

    def look(self) -> None:
        for uri in (MAIN, SIDE):
            self.broken += missing(self, uri)


def missing(store: Store, leaf: str) -> list[str]:
    """Files that a leaf's marker lists and that are not there, or are others."""
    marker = store.content.get(f"{leaf}/_SUCCESS")
    if marker is None:
        return []
    manifest = json.loads(marker)
    lost = [f["name"] for f in manifest["files"] if len(store.content.get(f"{leaf}/{f['name']}", b"")) != f["bytes"]]
    for file in manifest["attachments"]:
        content = store.content.get(f"{leaf}/{file['name']}", b"")
        lost += [] if hashlib.sha256(content).hexdigest() == file["sha256"] else [file["name"]]
    return lost


class Scheduler:
    """Lets one of several threads take a given number of steps, then another."""

    def __init__(self) -> None:
        self._turns: dict[str, threading.Semaphore] = {}
        self._left: dict[str, int] = {}
        self._back = threading.Semaphore(0)
        self._threads: dict[str, threading.Thread] = {}
        self._dead: set[str] = set()
        self.outcomes: dict[str, str] = {}
        self.taken: dict[str, int] = {}

    def add(self, name: str, work: Callable[[], bool]) -> None:
        def run() -> None:
            self._turns[name].acquire()
            try:
                self.outcomes[name] = "done" if work() else "nothing to do"
            except RetryableError:
                self.outcomes[name] = "retryable"
            except Killed:
                self.outcomes[name] = "killed"
            except BaseException as failure:  # noqa: BLE001 - it is what the test is about
                self.outcomes[name] = repr(failure)
            self._back.release()

        self._turns[name], self._left[name], self.taken[name] = threading.Semaphore(0), 0, 0
        self._threads[name] = threading.Thread(target=run, daemon=True)
        self._threads[name].start()

    def step(self, name: str) -> None:
        if self._left[name] == 0:
            self._back.release()
            self._turns[name].acquire()
        if name in self._dead:
            raise Killed
        self._left[name] -= 1
        self.taken[name] += 1

    def run(self, name: str, steps: int = FOR_EVER) -> None:
        if name not in self.outcomes:
            self._left[name] = steps
            self._turns[name].release()
            self._back.acquire()

    def kill(self, name: str) -> None:
        self._dead.add(name)
        self.run(name)


class MemoryFiles:
    """What `Files` does, on the store, one step each."""

    def __init__(self, store: Store, step: Callable[[], None]) -> None:
        self._store, self._step = store, step

    def _put(self, uri: str, content: bytes) -> None:
        self._step()
        self._store.content[uri] = content
        self._store.look()

    def exists(self, uri: str) -> bool:
        self._step()
        return any(key == uri or key.startswith(f"{uri}/") for key in self._store.content)

    def list(self, uri: str) -> list[FileInfo]:
        self._step()
        found: dict[str, FileInfo] = {}
        for key, content in self._store.content.items():
            if key.startswith(f"{uri}/"):
                name, _, rest = key[len(uri) + 1 :].partition("/")
                found[name] = FileInfo(f"{uri}/{name}", 0 if rest else len(content), bool(rest), 0)
        return sorted(found.values(), key=lambda entry: entry.name)

    def read_text(self, uri: str) -> str:
        self._step()
        if uri not in self._store.content:
            raise FileNotFoundError(uri)
        return self._store.content[uri].decode()

    def write_text(self, uri: str, text: str) -> None:
        self.delete(uri)
        self._put(uri, text.encode())

    def create_new(self, uri: str, text: str) -> bool:
        self._step()
        if uri in self._store.content:
            return False
        if self._store.in_one_request:
            self._store.content[uri] = text.encode()
            return True
        request = (uri, text.encode())
        self._store.flying.append(request)
        self._step()
        self._land([request])
        self._step()  # a wait, in which requests of all others come to their ends
        self._land([other for other in self._store.flying if other[0] == uri])
        self._step()
        return self._store.content[uri] == text.encode()

    def _land(self, requests: Sequence[tuple[str, bytes]]) -> None:
        for request in requests:
            if request in self._store.flying:
                self._store.flying.remove(request)
                self._store.content[request[0]] = request[1]

    def upload(self, local: str, uri: str) -> None:
        self._put(uri, Path(local).read_bytes())

    def move(self, source: str, target: str) -> None:
        self._step()
        if source not in self._store.content:
            raise FileNotFoundError(source)
        self._store.content[target] = self._store.content.pop(source)
        self._store.look()

    def copy(self, source: str, target: str) -> None:
        self._step()
        if source not in self._store.content:
            raise FileNotFoundError(source)
        self._store.content[target] = self._store.content[source]

    def delete(self, uri: str) -> None:
        self._step()
        for key in [key for key in self._store.content if key == uri or key.startswith(f"{uri}/")]:
            del self._store.content[key]
        self._store.look()

    def pending_uploads(self, uri: str) -> Sequence[Any]:
        return []

    def abort_uploads(self, uri: str, uploads: Sequence[Any]) -> None:
        return None


class Rehearsal(Publication):
    """A publication that writes files of so many bytes as there are rows."""

    def _save(self, table: Table, frame: Any, folder: str) -> None:
        write = uuid.uuid4()
        for part in range(2):
            content = bytes(frame // 2 + (frame % 2) * part)
            self._files._put(f"{folder}/part-{part:05d}-{write}-c000.zstd.parquet", content)  # type: ignore[attr-defined]

    def _count(self, name: str, files: set[str]) -> int:
        sizes = {file.name: file.size for file in self._files.list(self._uris[name])}
        if not files <= sizes.keys():
            raise FileNotFoundError(f"{files - sizes.keys()}")
        return sum(sizes[file] for file in files)


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store, Callable[[], None], int], bool]:
    """One attempt at the run in a number of shards, 0 for a run without."""

    def work(store: Store, step: Callable[[], None], shards: int) -> bool:
        files = MemoryFiles(store, step)
        monkeypatch.setattr(publish, "Files", lambda spark: files)
        leaves = [Leaf(REJECTS, {"job": "measure", "part": "all"}), Leaf(MEASURED, {"source": "lab"})]
        publication = Rehearsal(None, ROOT, "r1", CONFIG, DIGEST, leaves, lambda warning: None)  # type: ignore[arg-type]
        if not publication.begin():
            return False
        parts = publication.shards([f"inputs {k}" for k in range(shards)]) if shards else [publication]
        for part in parts:
            part.write(MEASURED, ROWS)  # type: ignore[arg-type]
            part.write(REJECTS, REJECTED)  # type: ignore[arg-type]
            if shards:
                part.commit(ROWS + REJECTED)  # type: ignore[call-arg]
        publication.attach(MEASURED, "_weights.bin", f"weights of {uuid.uuid4()}")
        publication.commit((ROWS + REJECTED) * max(shards, 1), json.dumps({"report of": str(uuid.uuid4())}))
        return True

    return work


Attempt = Callable[[Store, Callable[[], None], int], bool]


def _scheduled(attempt: Attempt, store: Store, names: str, shards: int) -> Scheduler:
    scheduler = Scheduler()
    for name in names:
        scheduler.add(name, lambda name=name: attempt(store, lambda: scheduler.step(name), shards))  # type: ignore[misc]
    return scheduler


def _assert_whole(store: Store, shards: int = 0, tidy: bool = True) -> None:
    """`tidy`: nobody died, so nothing is left that no manifest lists."""
    attempts = set()
    for leaf, rows in ((MAIN, ROWS), (SIDE, REJECTED)):
        manifest = json.loads(store.content[f"{leaf}/_SUCCESS"])
        attempts.add(manifest["attempt"])
        assert missing(store, leaf) == []
        assert manifest["rows"] == rows * max(shards, 1)
        listed = {file["name"] for file in [*manifest["files"], *manifest["attachments"]]}
        found = {key.removeprefix(f"{leaf}/").partition("/")[0] for key in store.content if key.startswith(f"{leaf}/")}
        assert listed <= found
        assert not tidy or found - listed <= {"_SUCCESS", "_attempts", "_shards"}, found - listed
    assert len(attempts) == 1, "tables of two attempts"


def _assert_one_won(scheduler: Scheduler, store: Store, at: object, shards: int = 0) -> None:
    outcomes = sorted(outcome for outcome in scheduler.outcomes.values() if outcome != "killed")
    assert set(outcomes) <= {"done", "nothing to do", "retryable"}, (at, outcomes)
    assert outcomes.count("done") == 1, (at, outcomes)
    assert store.broken == [], (at, store.broken)
    _assert_whole(store, shards)


def _steps(attempt: Attempt, shards: int = 0) -> int:
    """The steps of an attempt that is alone."""
    store = Store(True)
    scheduler = _scheduled(attempt, store, "a", shards)
    scheduler.run("a")
    assert scheduler.outcomes == {"a": "done"}
    _assert_whole(store, shards)
    return scheduler.taken["a"]


def test_in_every_order_with_one_stop_of_each_attempt_one_wins(attempt: Attempt) -> None:
    steps = _steps(attempt)
    seen = set()
    for first in range(1, steps):
        for second in range(1, 2 * steps):
            store = Store(True)
            scheduler = _scheduled(attempt, store, "ab", 0)
            scheduler.run("a", first)
            scheduler.run("b", second)
            over = "b" in scheduler.outcomes
            scheduler.run("a")
            scheduler.run("b")
            _assert_one_won(scheduler, store, (first, second))
            seen.add((scheduler.outcomes["a"], scheduler.outcomes["b"]))
            if over:
                break
    assert {("done", "retryable"), ("retryable", "done"), ("done", "nothing to do")} <= seen


@pytest.mark.parametrize(("names", "shards", "deaths"), [("ab", 0, 1), ("abc", 0, 0), ("ab", 2, 1), ("abc", 2, 2)])
def test_in_orders_with_many_stops_and_deaths_a_survivor_wins(
    attempt: Attempt, names: str, shards: int, deaths: int
) -> None:
    rng = np.random.default_rng([len(names), shards, deaths])
    for number in range(300):
        store = Store(True)
        scheduler = _scheduled(attempt, store, names, shards)
        doomed = set(rng.choice(list(names), deaths, replace=False))
        for _ in range(rng.integers(1, 12)):
            scheduler.run(rng.choice(list(names)), int(rng.integers(1, 60)))
        for name in doomed:
            scheduler.kill(name)
        for name in rng.permutation(list(names)):
            scheduler.run(name)
        alive = [scheduler.outcomes[name] for name in names if name not in doomed]
        assert set(alive) <= {"done", "nothing to do", "retryable"}, (number, alive)
        assert store.broken == [], number
        # A survivor may have lost to one that died since: then the next attempt wins.
        if "_SUCCESS" not in {key.removeprefix(f"{MAIN}/") for key in store.content}:
            assert deaths > 0
        again = _scheduled(attempt, store, "z", shards)
        again.run("z")
        assert again.outcomes["z"] in ("done", "nothing to do"), number
        assert again.outcomes["z"] == "nothing to do" or deaths > 0, (number, alive)
        assert not {"done", "nothing to do"} & set(alive) or again.outcomes["z"] == "nothing to do", number
        assert store.broken == [], number
        _assert_whole(store, shards, tidy=deaths == 0)


def test_a_driver_that_dies_at_the_last_shard_loses_one_shard(attempt: Attempt) -> None:
    shards, steps = 10, _steps(attempt, 10)
    store = Store(True)
    scheduler = _scheduled(attempt, store, "a", shards)
    scheduler.run("a", steps * 9 // 10)
    scheduler.kill("a")
    manifests = [key for key in store.content if "/_shards/" in key]
    rows = {key: content for key, content in store.content.items() if "/part-" in key and "_staging" not in key}
    assert len(manifests) in (8, 9)
    again = _scheduled(attempt, store, "b", shards)
    again.run("b")
    assert again.outcomes == {"b": "done"}
    _assert_whole(store, shards)
    listed = {f["name"] for leaf in (MAIN, SIDE) for f in json.loads(store.content[f"{leaf}/_SUCCESS"])["files"]}
    kept = {
        f["name"]
        for key in manifests
        for part in json.loads(store.content[key])["tables"].values()
        for f in part["files"]
    }
    assert kept <= listed
    assert kept <= {key.rpartition("/")[2] for key in rows}
    assert len(listed - kept) == (shards - len(manifests)) * 4


def test_where_a_store_cannot_look_and_write_in_one_request_one_wins_too(attempt: Attempt) -> None:
    rng = np.random.default_rng(3)
    steps = _steps(attempt)
    for number in range(1000):
        store = Store(in_one_request=False)
        scheduler = _scheduled(attempt, store, "ab", 0)
        scheduler.run("a", int(rng.integers(1, steps)))
        for _ in range(rng.integers(1, 6)):
            scheduler.run(rng.choice(["a", "b"]), int(rng.integers(1, 10)))
        for name in rng.permutation(["a", "b"]):
            scheduler.run(name)
        _assert_one_won(scheduler, store, number)
