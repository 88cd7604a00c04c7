"""The page of a set of pairs as text. It has no script: what can be seen is there from the start."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from geosieve.reporting import markup

_KM_PER_DEG = 111.195  # of latitude, on the sphere of radius 6371.0088 km
_SHADES = 5
_LEAST_CELLS = 12
"""Of a map, across: in one of fewer, cells would look like areas."""

_ASKS = {
    "cc-by": "name the author, the licence and its link, and say what was changed",
    "cc-by-sa": "as CC BY; what is made of it has the same licence",
    "cc0": "nothing",
    "pdm": "nothing: its copyright has ended",
}
_FREE = ("cc0", "pdm")


@dataclass(frozen=True)
class AreaMap:
    """Pairs of an area by cells. `cells`: (row from the south, column from the west, pairs).

    `south` and `west`: where they begin, degrees. `high` and `wide`: size of a cell, degrees of latitude and longitude.
    """

    name: str
    cells: Sequence[tuple[int, int, int]]
    south: float
    west: float
    high: float
    wide: float


@dataclass(frozen=True)
class Sample:
    """A pair that is shown. `facts`: columns of `pairs`; `credit`: of `harvested_photos`; two JPEG files."""

    facts: Mapping[str, Any]
    credit: Mapping[str, Any] | None
    photo: bytes
    chip: bytes


@dataclass(frozen=True)
class PairsPage:
    """All that the page says. Lists are in the order in which they are shown.

    `areas`, `splits`, `licences`: name, pairs, authors, places, first and last year. `authors`: pairs `of_ten` authors
    with most, and `groups`: (power of ten that bounds their pairs, authors, pairs). `places`: figures with lat, lon and
    area. `refused`: error class, number and message. `before`: what `chips` and `splits` left out.
    """

    title: str
    note: str
    name: str
    run: str
    made_at: str
    images: int
    licences_allowed: Sequence[str] | str
    place_level: int
    least_authors: int
    counts: Mapping[str, Any]
    areas: Sequence[Mapping[str, Any]]
    splits: Sequence[Mapping[str, Any]]
    licences: Sequence[Mapping[str, Any]]
    authors: Mapping[str, Any]
    places: Sequence[Mapping[str, Any]]
    maps: Sequence[AreaMap]
    samples: Sequence[Sample]
    samples_asked: int
    refused: Sequence[Mapping[str, Any]]
    before: Mapping[str, Sequence[Mapping[str, Any]]]
    warnings: Sequence[str]


def render(page: PairsPage) -> str:
    """The HTML file."""
    sections = [
        ("overview", "In short", _overview(page)),
        ("areas", "Areas", _areas(page)),
        *([("splits", "Splits", _splits(page))] if page.splits else []),
        ("places", "Places", _places(page)),
        ("authors", "Authors", _authors(page)),
        ("licences", "Licences", _licences(page)),
        ("samples", "Some pairs", _samples(page)),
        ("left-out", "What was left out, and why", _left_out(page)),
        ("limits", "What you must not conclude", _limits()),
    ]
    name, run = (f"<bdi>{markup.text(value)}</bdi>" for value in (page.name, page.run))
    head = f"Set of pairs {name}, run {run} · page made {markup.text(page.made_at)}"
    if page.note:
        head += f"</p><p>{markup.text(page.note)}"
    return markup.document(page.title, head, ("h-samples", "Skip to the pictures"), sections, ["page.css", "pairs.css"])


def _overview(page: PairsPage) -> str:
    counts = page.counts
    facts = [
        ("pairs", f"{counts['pairs']:,}"),
        ("of images", f"{page.images:,}"),
        ("areas", f"{counts['areas']:,}"),
        ("places", f"{counts['places']:,}"),
        ("authors", f"{counts['authors']:,}"),
        ("years of the photos", _years(counts)),
    ]
    notes = [f"A place is an S2 cell of level {page.place_level}, some {_metres(page.place_level)} wide."]
    if counts["anonymous"]:
        notes.append(f"{counts['anonymous']:,} photos have no author, so authors are not counted in full.")
    if counts["undated"]:
        notes.append(f"{counts['undated']:,} photos have no time.")
    warnings = [f"Warning: {warning}" for warning in page.warnings]
    return markup.facts(facts) + "".join(f"<p>{markup.text(note)}</p>" for note in (*notes, *warnings))


def _metres(level: int) -> str:
    """About the width of an S2 cell: the square root of the mean area of its level."""
    km = (510_065_622 / (6 * 4**level)) ** 0.5
    return f"{km:,.1f} km" if km >= 1 else f"{1000 * km:,.0f} m"


def _years(row: Mapping[str, Any]) -> str:
    first, last = row["first"], row["last"]
    return "–" if first is None else str(first) if first == last else f"{first}–{last}"


def _bar(share: float) -> str:
    """A bar for those who see it; the number stands beside it."""
    width = f'<rect width="{100 * share:.1f}" height="10"/>'
    return f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{width}</svg>'


_HEADS = ["pairs", "share", "authors", "places", "years"]


def _figures(row: Mapping[str, Any], total: int) -> list[str]:
    share = row["pairs"] / total
    counts = (f"{row[name]:,}" for name in ("authors", "places"))
    return [f"{row['pairs']:,}", f"{share:.1%} {_bar(share)}", *counts, _years(row)]


def _grouped(caption: str, head: str, rows: Sequence[Mapping[str, Any]], total: int, none: str) -> str:
    body = [
        [none if row["name"] is None else f"<bdi>{markup.text(row['name'])}</bdi>", *_figures(row, total)]
        for row in rows
    ]
    return markup.table(caption, [head, *_HEADS], body, (1, 2, 3, 4))


def _areas(page: PairsPage) -> str:
    table = _grouped("Pairs by area, the largest first", "area", page.areas, page.counts["pairs"], "none")
    maps = "".join(f"<figure>{_map(one)}</figure>" for one in page.maps)
    more = page.counts["areas"] - len(page.maps)
    note = f"<p>Smaller areas, without a map here: {more:,}.</p>" if more > 0 else ""
    return f'{table}<h3>Where the photos are</h3><div class="maps">{maps}</div>{note}'


def _map(area: AreaMap) -> str:
    """A map of cells, north up, in shades of the number of pairs, and what it shows in words."""
    rows, columns = (1 + max(cell[k] for cell in area.cells) for k in (0, 1))
    most, total = max(n for _, _, n in area.cells), sum(n for _, _, n in area.cells)
    bounds = _bounds(most)
    cells = "".join(
        f'<rect class="d{_shade(n, bounds)}" x="{right}" y="{rows - 1 - up}" width="1" height="1"/>'
        for up, right, n in area.cells
    )
    # A margin of one cell, so that a cell at the edge looks like one; more where there are few cells.
    margin = [max(1.0, (_LEAST_CELLS - n) / 2) for n in (columns, rows)]
    box = f'viewBox="{-margin[0]} {-margin[1]} {columns + 2 * margin[0]} {rows + 2 * margin[1]}"'
    name = markup.text(area.name)
    key = " ".join(f'<span class="shade">{_swatch(shade)}{words}</span>' for shade, words in _key(bounds))
    size = area.high * _KM_PER_DEG
    width = f"{1000 * size:,.0f} m" if size < 1 else f"{size:,.{0 if size >= 10 else 1}f} km"
    lat, lon = (
        _span(area.south, area.south + rows * area.high, "NS"),
        _span(area.west, area.west + columns * area.wide, "EW"),
    )
    unit = "cell" if len(area.cells) == 1 else "cells"
    words = (
        f"{name}: {total:,} pairs in {len(area.cells):,} {unit} of {width}; at most {most:,} in one. "
        f"Latitude {lat}, longitude {lon}. North is up."
    )
    label = f"Density of photos, {name}; the text below describes it"
    return (
        f'<svg class="density" role="img" aria-label="{label}" {box} preserveAspectRatio="xMidYMid meet">{cells}</svg>'
        f"<figcaption>{words}<br>Pairs in a cell: {key}</figcaption>"
    )


def _swatch(shade: int) -> str:
    rect = f'<rect class="d{shade}" width="1" height="1"/>'
    return f'<svg class="swatch" viewBox="0 0 1 1" aria-hidden="true">{rect}</svg>'


def _span(low: float, high: float, letters: str) -> str:
    def said(value: float) -> str:
        value = (value + 180) % 360 - 180 if letters == "EW" else value
        return f"{abs(value):.3f}° {letters[0] if value >= 0 else letters[1]}"

    return f"{said(low)} to {said(high)}"


def _bounds(most: int) -> list[int]:
    """The largest numbers of the shades: a geometric series up to `most`, without repetitions."""
    series = {max(1, round(most ** (k / _SHADES))) for k in range(1, _SHADES + 1)}
    return sorted(series)


def _shade(n: int, bounds: Sequence[int]) -> int:
    at = next(k for k, bound in enumerate(bounds) if n <= bound)
    return _SHADES - len(bounds) + at + 1


def _key(bounds: Sequence[int]) -> list[tuple[int, str]]:
    lows = [1, *(bound + 1 for bound in bounds[:-1])]
    words = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in zip(lows, bounds, strict=True)]
    return [(_shade(high, bounds), text) for high, text in zip(bounds, words, strict=True)]


def _splits(page: PairsPage) -> str:
    return _grouped("Pairs by split", "split", page.splits, page.counts["pairs"], "none")


def _places(page: PairsPage) -> str:
    rule = f"Only places that {page.least_authors:,} authors or more photographed are listed: others may be homes."
    if not page.places:
        return f"<p>{rule} There are none.</p>"
    rows = [
        (
            f"{_at(row['lat'], 'NS')}, {_at(row['lon'], 'EW')}",
            f"<bdi>{markup.text(row['area'])}</bdi>",
            f"{row['pairs']:,}",
            f"{row['authors']:,}",
            _years(row),
        )
        for row in page.places
    ]
    share = sum(row["pairs"] for row in page.places) / page.counts["pairs"]
    caption = f"The most photographed places: {len(rows)} of {page.counts['places']:,}"
    note = f"<p>They have {share:.1%} of the pairs. A position is the mean of the photos there. {rule}</p>"
    return markup.table(caption, ["place", "area", "pairs", "authors", "years"], rows, (2, 3)) + note


def _at(value: float, letters: str) -> str:
    return f"{abs(value):.3f}° {letters[0] if value >= 0 else letters[1]}"


def _authors(page: PairsPage) -> str:
    total = page.counts["pairs"]
    if not page.authors["groups"]:
        return "<p>No photo has an author.</p>"
    rows = [
        (
            "1" if power == 0 else f"{10 ** (power - 1) + 1:,} to {10**power:,}",
            f"{authors:,}",
            f"{pairs:,}",
            f"{pairs / total:.1%}",
        )
        for power, authors, pairs in page.authors["groups"]
    ]
    ten = page.authors["of_ten"]
    note = f"The ten authors with most pairs have {ten:,} of them ({ten / total:.1%})."
    hint = "Authors are counted here and not named. Names stand below pictures only, where a licence asks for them."
    table = markup.table(
        "Authors by number of pairs", ["pairs of an author", "authors", "pairs", "share"], rows, (1, 2, 3)
    )
    return f"<p>{note} {hint}</p>{table}"


def _licences(page: PairsPage) -> str:
    total = page.counts["pairs"]
    rows = [
        (
            "none is known" if row["name"] is None else f"<bdi>{markup.text(row['name'])}</bdi>",
            f"{row['pairs']:,}",
            f"{row['pairs'] / total:.1%}",
            f"{row['authors']:,}",
            _asks(row["name"]),
        )
        for row in page.licences
    ]
    allowed = page.licences_allowed
    said = "Any licence was allowed, also none." if allowed == "any" else f"Allowed were: {', '.join(allowed)}."
    heads = ["licence", "pairs", "share", "authors", "asks for"]
    return f"<p>{markup.text(said)}</p>" + markup.table("Pairs by licence of the photo", heads, rows, (1, 2, 3))


def _asks(licence: str | None) -> str:
    """What a licence asks for; of one that is not known here, nothing is said."""
    return escape(_ASKS.get(_kind(licence or ""), "–"))


def _kind(licence: str) -> str:
    """A licence without its version: cc-by-2.0 is a cc-by."""
    return licence.lower().rpartition("-")[0]


def _samples(page: PairsPage) -> str:
    if not page.samples_asked:
        return "<p>This page has no pictures: none were asked for.</p>"
    items = "".join(f"<li>{_sample(one)}</li>" for one in page.samples)
    said = (
        f"{len(page.samples):,} of {page.counts['pairs']:,} pairs, drawn by a hash of source and id, from every area."
    )
    return f"<p>{said} Left the photo, right the ground around it; the photo was taken in the middle.</p>" + (
        f'<ul class="pairs">{items}</ul>'
    )


def _sample(sample: Sample) -> str:
    facts, credit = sample.facts, sample.credit or {}
    metres = facts["chip_width"] * facts["chip_resolution_m"]
    area = markup.text(facts["area"])
    of = [f"<b>{area}</b>", *([] if facts["split"] is None else [f"split {markup.text(facts['split'])}"])]
    of += [f"{metres:,.0f} m across", *([] if facts["captured_at"] is None else [str(facts["captured_at"].year)])]
    licence = "no licence is known" if facts["licence"] is None else f"<bdi>{markup.text(facts['licence'])}</bdi>"
    said = f"Photo {_attribution(facts, credit)}{licence}, made smaller"
    return (
        f'<figure><div class="two">{_picture(sample.photo, f"Photo taken in {area}")}'
        f"{_picture(sample.chip, f'The ground there from above, {metres:,.0f} m across')}</div>"
        f"<figcaption>{' · '.join(of)}<br>{said}{_link(credit.get('page'))}</figcaption></figure>"
    )


def _attribution(facts: Mapping[str, Any], credit: Mapping[str, Any]) -> str:
    """Title and author, where the licence may ask for them; nobody is named without need."""
    if facts["licence"] is None or _kind(facts["licence"]) in _FREE:
        return ""
    title = "" if not credit.get("title") else f"“<bdi>{markup.text(credit['title'])}</bdi>” "
    who = credit.get("author_name") or facts["author"]
    return title + ("author unknown, " if who is None else f"by <bdi>{markup.text(who)}</bdi>, ")


def _picture(jpeg: bytes, alt: str) -> str:
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="{alt}">'


def _link(page: str | None) -> str:
    """A link to a photo's page; nothing for other than HTTPS."""
    if page is None or not page.startswith("https://"):
        return ""
    return f' · <a href="{markup.text(page)}" rel="noreferrer noopener">its page</a>'


def _left_out(page: PairsPage) -> str:
    parts = []
    total = sum(row["n"] for row in page.refused)
    if page.refused:
        parts.append(
            f"<p>{total:,} of {page.images:,} images became no pair. The first reason that applies counts.</p>"
        )
        parts.append(_rejects("Images that became no pair, by reason", page.refused))
    else:
        parts.append("<p>Every image became a pair.</p>")
    if page.before.get("chips"):
        parts.append("<h3>Before: positions without a chip</h3>")
        parts.append(_rejects("Positions that cut_chips refused, by reason", page.before["chips"]))
    if page.before.get("splits"):
        parts.append("<h3>Before: the splits</h3>")
        rows = [
            (markup.text(row["drawn"] or "none"), markup.text(row["outcome"]), f"{row['images']:,}")
            for row in page.before["splits"]
        ]
        parts.append(
            markup.table("Images that build_splits kept or left out", ["drawn for", "outcome", "images"], rows, (2,))
        )
    return "".join(parts)


def _rejects(caption: str, refused: Iterable[Mapping[str, Any]]) -> str:
    rows = [(markup.text(row["error_class"]), f"{row['n']:,}", markup.text(row["message"] or "–")) for row in refused]
    return markup.table(caption, ["reason", "number", "in words, of one of them"], rows, (1,))


_LIMITS = (
    "That a photo shows what the picture beside it shows. The position is the camera's, or was set by hand on a map; "
    "it may be off by hundreds of metres, and the camera may look anywhere.",
    "That both show the same time. Between the photo and the picture from above there may be years.",
    "That the photos say what these places look like. People photograph sights, and few people take most photographs.",
    "That photos are outdoors, sharp, or of the ground at all. Nothing here looked at what they show.",
    "That a licence is right. It is what the uploader said; whoever uploads is not always the author.",
    "Who somebody is, or where a person lives or was. A photo with its place and time can harm the people on it; an "
    "open licence for the picture is no consent of theirs.",
)


def _limits() -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in _LIMITS) + "</ul>"
