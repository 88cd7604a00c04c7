"""All photos of a box are found, each once, with few requests, from a service that answers as Flickr does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from photo_servers import API, BEFORE, CAP, CONFIG, KEY, OPEN, SINCE, Service, city, query, serving, to_harvest

from geosieve.overhead.download import Web
from geosieve.overhead.flickr import Flickr, FlickrConfig
from geosieve.overhead.patience import Pace
from geosieve.overhead.photo_source import Photo
from geosieve.overhead.searching import complete_answers
from geosieve.runtime.errors import ConfigError, GeosieveError, InputError, RetryableError


def flickr(web: Web, key: str = KEY, sleep: Callable[[float], None] = lambda seconds: None, **changes: Any) -> Flickr:
    return Flickr(FlickrConfig(**{**CONFIG, "output": "tables", **changes}), key, web, API, sleep)


def harvested(source: Flickr, folder: Path, begin: int = SINCE, end: int = BEFORE) -> list[Photo]:
    found = complete_answers(source, query(begin, end), str(folder))
    return [photo for _, answer in found for photo in answer.photos]


def with_border_photos(photos: pd.DataFrame) -> pd.DataFrame:
    """Moves some photos to the corners and borders of the box."""
    moved = photos.copy()
    for k, (lat, lon) in enumerate([(48.15, 16.3), (48.25, 16.35), (48.2, 16.4), (48.15, 16.35), (48.25, 16.4)]):
        moved.loc[moved.index[k::2000], ["lat", "lon"]] = round(lat * 1e6), round(lon * 1e6)
    return moved


@pytest.mark.parametrize(("photos", "seed", "crowd"), [(60_000, 1, 0), (60_000, 2, 9_000), (9_000, 3, 8_000)])
def test_all_photos_are_found_once_and_with_few_requests(tmp_path: Path, photos: int, seed: int, crowd: int) -> None:
    service = Service(with_border_photos(city(photos, seed, crowd)))
    with serving(service) as web:
        found = harvested(flickr(web), tmp_path)
    wanted = to_harvest(service.photos)
    assert len(wanted) > CAP
    assert sorted(int(photo.id) for photo in found) == sorted(wanted["id"])
    by_id = wanted.set_index("id")
    for photo in found[::97]:
        row = by_id.loc[int(photo.id)]
        assert (photo.lat, photo.lon) == (row.lat / 1e6, row.lon / 1e6)
        assert (photo.licence, photo.uploaded) == (OPEN[row.license], row.uploaded)
    least = -(-len(wanted) // 250)
    assert service.searches <= 1.5 * least, (service.searches, least)
    print(f"{len(wanted)} photos: {service.searches} requests, at least {least}: {service.searches / least:.2f}")


def test_an_answer_that_repeats_photos_over_pages_is_asked_for_again(tmp_path: Path) -> None:
    service = Service(city(30_000, 4), unsteady=2)
    with serving(service) as web:
        found = harvested(flickr(web), tmp_path)
    pages = [(call.get("bbox"), call.get("min_upload_date"), call.get("page")) for call in service.asked]
    assert len(pages) > len(set(pages))  # some were asked for twice
    assert sorted(int(photo.id) for photo in found) == sorted(to_harvest(service.photos)["id"])


def test_the_end_of_the_time_does_not_count(tmp_path: Path) -> None:
    service = Service(city(3000, 5))
    begin, end = sorted(np.random.default_rng(5).choice(to_harvest(service.photos)["uploaded"], 2, replace=False))
    with serving(service) as web:
        found = harvested(flickr(web), tmp_path, int(begin), int(end))
    wanted = to_harvest(service.photos, begin, end)
    assert begin in set(wanted["uploaded"]) and end not in set(wanted["uploaded"])
    assert sorted(int(photo.id) for photo in found) == sorted(wanted["id"])


def test_photos_that_nothing_tells_apart_are_told(tmp_path: Path) -> None:
    photos = city(5000, 6, crowd=5000).assign(uploaded=1_200_000_000, license=4)
    service = Service(photos)
    with serving(service) as web:
        answers = [found for _, found in complete_answers(flickr(web), query(), str(tmp_path))]
    refused = [refusal for found in answers for refusal in found.refused]
    assert sum(len(found.photos) for found in answers) == CAP
    assert [(refusal.error_class, refusal.message.split()[0]) for refusal in refused] == [("too_many", "5000")]


def test_an_interrupted_search_goes_on_without_asking_again(tmp_path: Path) -> None:
    service = Service(city(30_000, 7))
    with serving(service) as web:
        whole = harvested(flickr(web), tmp_path / "whole")
        once = service.searches
        pieces, tries, done = tmp_path / "pieces", 0, False
        found: list[Photo] = []
        while not done:  # ends after one more answer each time
            found, tries, done = [], tries + 1, True
            for number, (_, answer) in enumerate(complete_answers(flickr(web), query(), str(pieces)), 1):
                found += answer.photos
                if number == tries:
                    done = False
                    break
        assert found == whole and tries > 5
        assert service.searches == 2 * once


def error(bodies: list[tuple[int, dict[str, str], bytes]], key: str = KEY) -> tuple[GeosieveError | None, Service]:
    service = Service(city(100, 8), failures=bodies)
    with serving(service) as web:
        try:
            flickr(web, key).page(query(), 1)
        except GeosieveError as failure:
            assert key not in f"{failure} {failure!r}"
            return failure, service
        return None, service


def fail(code: int, message: str = "some text") -> tuple[int, dict[str, str], bytes]:
    return 200, {}, f'{{"stat":"fail","code":{code},"message":"{message}"}}'.encode()


def test_failures_that_pass_are_tried_again_and_others_are_not() -> None:
    passing = [(503, {}, b""), (429, {"Retry-After": "9"}, b""), fail(105), (200, {}, b"<html>")]
    failure, service = error(list(passing))
    assert failure is None and len(service.asked) == 6  # four failures, the licences, the page
    failure, service = error([fail(105)] * 9)
    assert isinstance(failure, RetryableError) and len(service.asked) == 5
    failure, service = error([fail(3, f"key {KEY}")])
    assert isinstance(failure, InputError) and "error 3: key ***" in str(failure) and len(service.asked) == 1
    failure, service = error([], key="fedcba98765432100123456789abcdef")
    assert isinstance(failure, ConfigError) and "FLICKR_API_KEY" in str(failure) and len(service.asked) == 1
    failure, service = error([(302, {"Location": f"http://evil.test/?api_key={KEY}"}, b"")])
    assert isinstance(failure, InputError) and len(service.asked) == 1


def test_pauses_are_those_that_the_service_asks_for() -> None:
    service = Service(city(100, 8), failures=[(429, {"Retry-After": "77"}, b""), (503, {}, b"")])
    pauses: list[float] = []
    with serving(service) as web:
        flickr(web, sleep=pauses.append, requests_per_hour=1800).page(query(), 1)
    # Nothing really sleeps, so the clock stands still, and the k-th request has to wait for 2 (k - 1) seconds.
    assert pauses[0] == 77.0 and 3.2 <= pauses[2] <= 4.8
    assert [round(pause) for pause in (pauses[1], *pauses[3:])] == [2, 4, 6]


def test_no_hour_has_more_requests_than_are_allowed() -> None:
    now, begun = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(3600 / 3000, sleep, clock=lambda: now[0])
    rng = np.random.default_rng(11)
    for took in rng.exponential(0.8, 9000):
        pace.wait()
        begun.append(now[0])
        now[0] += took
    times = np.array(begun)
    assert max(np.searchsorted(times, times + 3600 - 1e-6) - np.arange(len(times))) <= 3000
    assert len(times) / times[-1] > 0.4  # and it does not wait for longer than it must


def test_a_licence_that_the_service_does_not_have_is_refused() -> None:
    with serving(Service(city(100, 9))) as web, pytest.raises(InputError, match=r"no licence cc-by-4\.0"):
        flickr(web, licences=["cc-by-2.0", "cc-by-4.0"]).page(query(), 1)


def test_records_that_are_not_what_was_asked_for_are_refused(tmp_path: Path) -> None:
    def change(records: list[dict[str, Any]]) -> None:
        faults: list[dict[str, Any]] = [
            *({"ispublic": 0}, {"geo_is_public": 0}, {"license": "0"}, {"accuracy": 11}, {"url_m": None}),
            *({"latitude": "91"}, {"latitude": "NaN"}, {"longitude": []}, {"owner": "../x"}, {"dateupload": None}),
            *({"id": "../../etc/passwd"}, {"id": None}, {"latitude": "10.5"}),
        ]
        for record, fault in zip(records, faults, strict=False):
            record.update(fault)

    service = Service(city(300, 10), change=change)
    with serving(service) as web:
        ((_, found),) = complete_answers(flickr(web), query(), str(tmp_path))
    assert [refusal.error_class for refusal in found.refused] == [
        *("not_public", "not_public", "other_licence", "inaccurate", "no_file"),
        *["bad_record"] * 7,
        "outside",
    ]
    assert len(found.photos) == len(to_harvest(service.photos)) - 13
    assert [refusal.id for refusal in found.refused].count(None) == 2
