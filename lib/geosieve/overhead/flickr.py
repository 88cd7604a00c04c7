"""`harvest_flickr`: the public, geotagged photos of Flickr with open licences, in boxes.

flickr.photos.search tells a `total`, but has at most about 4,000 different photos to an answer, in pages of 250 where
photos are asked for by place. Which numbers stand for which licences is asked of the service, too.

The key of the API comes from the environment variable FLICKR_API_KEY. Messages never have it, not even if the service
repeats it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from pydantic import Field

from geosieve.job.main import Context, Run
from geosieve.job.publishing import publishes
from geosieve.overhead.download import DownloadError, Limits, Web
from geosieve.overhead.harvest import harvest, leaves
from geosieve.overhead.harvest_config import HarvestConfig
from geosieve.overhead.patience import Pace, Patience
from geosieve.overhead.photo_source import Page, Photo, Refused
from geosieve.overhead.queries import PER_DEGREE, Query, millionths
from geosieve.runtime.errors import ConfigError, InputError, RetryableError
from geosieve.tables.publish import Leaf, Publication

JOB = "harvest_flickr"
KEY = "FLICKR_API_KEY"
API = "https://api.flickr.com/services/rest/"

Licence = Literal["cc-by-2.0", "cc-by-sa-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "pdm-1.0"]
"""Licences that let anybody use and change a photo (opendefinition.org). Those with NC or ND do not."""

_DEEDS: dict[str, str] = {
    "cc-by-2.0": "licenses/by/2.0",
    "cc-by-sa-2.0": "licenses/by-sa/2.0",
    "cc-by-4.0": "licenses/by/4.0",
    "cc-by-sa-4.0": "licenses/by-sa/4.0",
    "cc0-1.0": "publicdomain/zero/1.0",
    "pdm-1.0": "publicdomain/mark/1.0",
}
"""Where at creativecommons.org the licences lie."""

_EXTRAS = "geo,license,owner_name,date_upload,date_taken,url_m"
_LIMITS = Limits(most_bytes=16 << 20, seconds=60, redirects=0)  # a redirect would carry the key elsewhere
_PASSING = (10, 105, 106)  # the search or the service is down for the moment
_INVALID_KEY = 100
_ID, _ACCOUNT = re.compile(r"[0-9]{1,20}"), re.compile(r"[0-9A-Za-z@_-]{1,60}")


class FlickrConfig(HarvestConfig):
    """Configuration of `harvest_flickr`."""

    licences: list[Licence] = Field(min_length=1)
    accuracy: int = Field(16, ge=1, le=16, description="least accuracy of positions: 16 is a street, 11 a city")
    photos_per_query: int = Field(
        4000, ge=250, le=4000, description="answers that promise more are not used, and their box is divided"
    )
    requests_per_hour: int = Field(3000, ge=1, le=3600, description="Flickr allows 3,600 of a key")


class Flickr:
    """Flickr as a `PhotoSource`. `api`: address of the service."""

    per_page = 250

    def __init__(
        self, config: FlickrConfig, key: str, web: Web, api: str = API, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Nothing is asked yet."""
        self.most, self.requests = config.photos_per_query, 0
        self._config, self._key, self._web, self._api = config, key, web, api
        self._pace, self._patience = Pace(3600 / config.requests_per_hour, sleep), Patience(sleep=sleep)
        self._licences: dict[str, str] = {}

    def page(self, query: Query, number: int) -> Page:
        """See `PhotoSource`."""
        licences = self._names_by_number()
        west, south, east, north = (
            f"{Decimal(border) / PER_DEGREE:f}" for border in (query.west, query.south, query.east, query.north)
        )
        found = self._call(
            "flickr.photos.search",
            bbox=f"{west},{south},{east},{north}",
            has_geo=1,
            accuracy=self._config.accuracy,
            license=",".join(licences),
            min_upload_date=query.begin,
            max_upload_date=query.end - 1,  # both are inclusive
            media="photos",
            content_type=1,  # no screenshots, no drawings
            safe_search=1,
            privacy_filter=1,
            sort="date-posted-asc",
            extras=_EXTRAS,
            per_page=self.per_page,
            page=number,
        )
        try:
            total, entries = int(found["photos"]["total"]), list(found["photos"]["photo"])
        except (KeyError, TypeError, ValueError):
            raise InputError("an answer without photos and their total", where="flickr.photos.search") from None
        read = [_read(entry, licences, self._config.accuracy) for entry in entries]
        return Page(
            total,
            [photo for photo in read if isinstance(photo, Photo)],
            [photo for photo in read if isinstance(photo, Refused)],
        )

    def _names_by_number(self) -> dict[str, str]:
        """Our names of the licences that are wanted, by Flickr's numbers. InputError if Flickr has one of them not."""
        if not self._licences:
            found = self._call("flickr.photos.licenses.getInfo")
            try:
                numbers = {_deed(str(entry["url"])): str(entry["id"]) for entry in found["licenses"]["license"]}
            except (KeyError, TypeError):
                raise InputError("an answer without licences", where="flickr.photos.licenses.getInfo") from None
            missing = [name for name in self._config.licences if _DEEDS[name] not in numbers]
            if missing:
                raise InputError(
                    f"Flickr has no licence {', '.join(missing)}", where="licences", hint="leave it out of licences"
                )
            self._licences = {numbers[_DEEDS[name]]: name for name in self._config.licences}
        return self._licences

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self._patience(lambda: self._once(method, arguments))
        except DownloadError as error:
            text = error.what.replace(self._key, "***")
            if error.temporary:
                raise RetryableError(
                    f"Flickr does not answer: {error.kind}: {text}",
                    where=method,
                    hint="run again with the same --run-id; boxes that are done are kept",
                ) from None
            raise InputError(f"Flickr refuses: {error.kind}: {text}", where=method) from None

    def _once(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """One request. DownloadError if it fails, ConfigError or InputError if the service refuses for good."""
        self._pace.wait()
        self.requests += 1
        asked = {"method": method, **arguments, "api_key": self._key, "format": "json", "nojsoncallback": 1}
        body = self._web.get(f"{self._api}?{urlencode(asked)}", _LIMITS).body
        try:
            found = json.loads(body, parse_float=Decimal)
            state = found["stat"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise DownloadError("bad_answer", "the answer is no JSON of Flickr", method, temporary=True) from None
        if state == "ok":
            answer: dict[str, Any] = found
            return answer
        code, message = found.get("code"), str(found.get("message"))[:200].replace(self._key, "***")
        if code in _PASSING:
            raise DownloadError("unavailable", f"error {code}: {message}", method, temporary=True)
        if code == _INVALID_KEY:
            raise ConfigError(f"Flickr does not know the key: {message}", where=method, hint=f"set {KEY}")
        raise InputError(f"Flickr refuses the request: error {code}: {message}", where=method)


def _deed(url: str) -> str:
    """The path of a licence at creativecommons.org; another host's URL stays as it is."""
    parts = urlsplit(url)
    return parts.path.strip("/") if parts.hostname in ("creativecommons.org", "www.creativecommons.org") else url


def _read(entry: Any, licences: dict[str, str], accuracy: int) -> Photo | Refused:
    """A photo of an answer; or why it cannot be used, because it is not what was asked for or not described."""
    number = str(entry.get("id")) if isinstance(entry, dict) else ""
    if not _ID.fullmatch(number):  # it becomes a file's name
        return Refused(None, "bad_record", f"no id of a photo: {number[:60]!r}")

    def refuse(kind: str, message: str) -> Refused:
        return Refused(number, kind, message)

    try:
        if str(entry.get("ispublic")) != "1" or str(entry.get("geo_is_public", "1")) != "1":
            return refuse("not_public", "the photo or its position is not public")
        if str(entry["license"]) not in licences:
            return refuse("other_licence", f"licence {str(entry['license'])[:20]!r} was not asked for")
        if int(entry["accuracy"]) < accuracy:
            return refuse("inaccurate", f"accuracy {entry['accuracy']} of the position is below {accuracy}")
        if not entry.get("url_m"):
            return refuse("no_file", "there is no file of this size")
        lat, lon = (Decimal(str(entry[name])) for name in ("latitude", "longitude"))
        if not (abs(lat) <= 90 and abs(lon) <= 180):
            return refuse("bad_record", f"no position: {lat}, {lon}")
        owner = str(entry["owner"])
        if not _ACCOUNT.fullmatch(owner):
            return refuse("bad_record", f"no account: {owner[:60]!r}")
        return Photo(
            id=number,
            lat=float(lat),
            lon=float(lon),
            position=(millionths(lat), millionths(lon)),
            uploaded=int(entry["dateupload"]),
            url=str(entry["url_m"]),
            licence=licences[str(entry["license"])],
            author=owner,
            author_name=_text(entry.get("ownername")),
            title=_text(entry.get("title")),
            page=f"https://www.flickr.com/photos/{owner}/{number}",
            captured_at=_captured(entry),
        )
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        return refuse("bad_record", f"not described as was asked for: {type(error).__name__} {error}")


def _text(value: Any) -> str | None:
    return str(value)[:1000] if value else None


def _captured(entry: dict[str, Any]) -> datetime | None:
    """When it was taken, if that is known to the second. Flickr has no time zone."""
    if str(entry.get("datetakenunknown", "0")) != "0" or str(entry.get("datetakengranularity", "0")) != "0":
        return None
    try:
        return datetime.strptime(str(entry.get("datetaken")), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _leaves(config: FlickrConfig) -> list[Leaf]:
    return leaves(JOB, config)


def flickr_job(web: Web, api: str = API, sleep: Callable[[float], None] = time.sleep) -> Run[FlickrConfig]:
    """The job `harvest_flickr`, which asks `api` and downloads by `web`."""

    @publishes(_leaves)
    def harvest_flickr(ctx: Context[FlickrConfig], publication: Publication) -> int:
        """Write `harvested_photos/source=<name>` and `rejects/job=harvest_flickr/part=<name>`, and the photos' files.

        ConfigError without a key or with one that Flickr does not know; see `harvest` and `Flickr.page`.
        """
        key = os.environ.get(KEY, "").strip()
        if ctx.dry_run:
            inputs = {f"box {n}": str(box) for n, box in enumerate(ctx.config.boxes, 1)}
            ctx.show_plan({**inputs, "key": f"{KEY} is {'' if key else 'not '}set"}, {})
            return 0
        if not key:
            raise ConfigError("no key of Flickr's API", where=KEY, hint=f"export {KEY}=…, never in a configuration")
        return harvest(ctx, publication, Flickr(ctx.config, key, web, api, sleep), web, Patience(sleep=sleep))

    return harvest_flickr


harvest_flickr = flickr_job(Web())
