"""Servers on loopback that behave like a photo service, with fabricated photos, and like nobody should.

`CITY` and all answers are SYNTHETIC: drawn with a seed, after the documentation of flickr.photos.search.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
from fabricated_images import image

from geosieve.overhead.download import Web
from geosieve.overhead.harvest_config import Box
from geosieve.overhead.queries import Query

KEY = "0123456789abcdefSECRETfedcba9876"
API = "http://api.photos.test/services/rest/"
LOOPBACK = "127.0.0.1"
LICENCES = {
    0: "https://www.flickrhelp.com/",
    1: "https://creativecommons.org/licenses/by-nc-sa/2.0/",
    4: "https://creativecommons.org/licenses/by/2.0/",
    5: "https://creativecommons.org/licenses/by-sa/2.0/",
    9: "https://creativecommons.org/publicdomain/zero/1.0/",
}
CAP = 4000
SINCE, BEFORE = 1_100_000_000, 1_700_000_000
"""Between which all photos of a city were uploaded."""
BOX = {"south": 48.15, "west": 16.3, "north": 48.25, "east": 16.4}
OPEN = {4: "cc-by-2.0", 5: "cc-by-sa-2.0", 9: "cc0-1.0"}
CONFIG: dict[str, Any] = {
    **{"name": "city", "boxes": [BOX], "uploaded": {"since": "2004-01-01", "before": "2024-01-01"}},
    "licences": [*OPEN.values()],
}
"""A harvest of the middle of a city, without an output."""


def city(photos: int, seed: int, crowd: int = 0) -> pd.DataFrame:
    """Photos of a synthetic city around (48.2, 16.35): streets, sights, and `crowd` photos at its very centre.

    A tenth has an all-rights-reserved licence. Positions in millionths of a degree, uploads in seconds since 1970.
    """
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.0002, 0.003, 0.05], photos, p=[0.35, 0.35, 0.3])
    sights = rng.uniform(-0.06, 0.06, (12, 2))[rng.integers(0, 12, photos)]
    place = np.array([48.2, 16.35]) + sights + rng.normal(size=(photos, 2)) * spread[:, None]
    place[:crowd] = 48.2, 16.35
    return pd.DataFrame(
        {
            "id": rng.permutation(photos) + 30_000_000_000,
            "lat": np.rint(place[:, 0] * 1e6).astype(int),
            "lon": np.rint(place[:, 1] * 1e6).astype(int),
            "uploaded": rng.integers(SINCE, BEFORE, photos),
            "license": rng.choice([0, 1, 4, 5, 9], photos, p=[0.1, 0.1, 0.4, 0.3, 0.1]),
            "owner": rng.integers(0, 300, photos),
        }
    ).sort_values(["uploaded", "id"], ignore_index=True)


def to_harvest(photos: pd.DataFrame, begin: int = SINCE, end: int = BEFORE) -> pd.DataFrame:
    """The open photos of the box and time, by brute force over all photos that the service has."""
    p = photos
    inside = (p.lat >= 48_150_000) & (p.lat < 48_250_000) & (p.lon >= 16_300_000) & (p.lon < 16_400_000)
    return p[inside & (p.uploaded >= begin) & (p.uploaded < end) & p.license.isin(list(OPEN))]


def query(begin: int = SINCE, end: int = BEFORE) -> Query:
    """The box in a time."""
    (only,) = Box(**BOX).queries(begin, end)
    return only


@dataclass
class Service:
    """A photo service: what it has, what it was asked, and how it errs.

    `unsteady`: every such query repeats photos of its first page on the second, and so leaves out the last ones, when
    it is asked for the first time. `failures`: answers to the next requests, before any right one: (status, headers,
    body). `change`: what is done to a page's records before they are sent.
    """

    photos: pd.DataFrame
    unsteady: int = 0
    failures: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    change: Callable[[list[dict[str, Any]]], None] = lambda records: None
    asked: list[dict[str, str]] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)
    odd_files: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)

    @property
    def searches(self) -> int:
        return sum(call["method"] == "flickr.photos.search" for call in self.asked)

    def answer(self, host: str, path: str, query: str) -> tuple[int, dict[str, str], bytes]:
        if not host.startswith("api."):
            return self._file(path)
        call = {name: values[0] for name, values in parse_qs(query).items()}
        self.asked.append(call)
        if self.failures:
            return self.failures.pop(0)
        if call["api_key"] != KEY:
            return _json({"stat": "fail", "code": 100, "message": f"Invalid API Key ({call['api_key']})"})
        if call["method"] == "flickr.photos.licenses.getInfo":
            listed = [{"id": number, "name": "", "url": url} for number, url in LICENCES.items()]
            return _json({"licenses": {"license": listed}, "stat": "ok"})
        return _json({"photos": self._search(call), "stat": "ok"})

    def _search(self, call: dict[str, str]) -> dict[str, Any]:
        west, south, east, north = (round(float(border) * 1e6) for border in call["bbox"].split(","))
        p = self.photos
        inside = (
            p.lat.between(south, north)
            & p.lon.between(west, east)
            & p.uploaded.between(int(call["min_upload_date"]), int(call["max_upload_date"]))
            & p.license.isin([int(number) for number in call["license"].split(",")])
        )
        found = p[inside]
        per_page, page = min(250, int(call["per_page"])), int(call["page"])
        start = (page - 1) * per_page % CAP  # beyond its limit the service repeats itself
        same = [c for c in self.asked if {**c, "page": ""} == {**call, "page": ""}]
        first_time = sum(c["page"] == call["page"] for c in same) == 1
        if self.unsteady and page > 1 and first_time and hash((south, west)) % self.unsteady == 0:
            start -= 3
        records = [_record(row) for row in found.iloc[start : start + per_page].itertuples()]
        self.change(records)
        # As text, as the service does now and then; one more or less on later pages.
        total = str(len(found)) if page == 1 else len(found) + page % 2
        return {
            "page": page,
            "pages": -(-len(found) // per_page),
            "perpage": per_page,
            "total": total,
            "photo": records,
        }

    def _file(self, path: str) -> tuple[int, dict[str, str], bytes]:
        name = path.rpartition("/")[2]
        self.files[name] += 1
        if name in self.odd_files:
            return self.odd_files[name]
        number = int(name.partition("_")[0])
        return 200, {}, image(color=(number % 251, number // 251 % 251, 90), size=(50, 40))


def _record(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "owner": f"{row.owner}@N00",
        "title": f"photo {row.id}",
        "ispublic": 1,
        "license": str(row.license),
        "dateupload": str(row.uploaded),
        "datetaken": "2015-06-01 12:30:00",
        "datetakengranularity": 0,
        "datetakenunknown": "0",
        "ownername": f"name {row.owner}",
        "latitude": f"{row.lat / 1e6:.6f}",
        "longitude": row.lon / 1e6,
        "accuracy": "16",
        "url_m": f"http://live.photos.test/65535/{row.id}_abc.jpg",
    }


def _json(content: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@contextmanager
def serving(service: Service) -> Iterator[Web]:
    """The service on loopback, and what reaches it by any name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            with lock:
                status, headers, body = service.answer(self.headers["Host"], parts.path, parts.query)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    lock = threading.Lock()
    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield on_loopback(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def on_loopback(port: int, **others: Any) -> Web:
    """Downloads over plain HTTP from a port of this machine, and from nowhere else."""
    rules = {"resolve": lambda host, port: [LOOPBACK], "allows": lambda address: str(address) == LOOPBACK}
    return Web(**{"ports": {"http": port}, **rules, **others})
