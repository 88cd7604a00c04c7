"""The page of a ranking's answers as text."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from geosieve.reporting import markup
from geosieve.reporting.charts import chart
from geosieve.reporting.shown import shown
from geosieve.reporting.truth import Compared

_AREAS_KM2 = ((1e2, "100"), (1e4, "10,000"), (1e6, "1 million"), (1e8, "100 million"))
_COARSE_DEG = 10
_PLACES = 15
"""Rows of the table that says in words what the map shows."""


@dataclass(frozen=True)
class Page:
    """All that the page says. Lists are in the order in which they are shown.

    `runs`: id, time of commit and images. `cells`: images, lat and lon of their mean, of cells of one degree. `images`:
    rows of the list; the number of an image is its place there. `details`: by number, `of_all` (how many regions the
    answer has), `regions` (the leading ones, as lists: rank, probability, area, both sums, centroid, box), and
    perhaps `jpeg` and `truth`. `figures`: rows of `evaluations`. `price`: per hour, and its currency.
    """

    title: str
    ranking: str
    made_at: str
    runs: Sequence[tuple[str, str, int]]
    counts: Mapping[str, Any]
    cells: Sequence[tuple[int, float, float]]
    images: Sequence[Mapping[str, Any]]
    details: Mapping[int, Mapping[str, Any]]
    most_regions: int
    outline: Sequence[Sequence[float]]
    truth_asked: bool
    compared: Compared | None
    figures: Sequence[Mapping[str, Any]]
    rejects: Sequence[Mapping[str, Any]]
    reports: Sequence[Mapping[str, Any]]
    audit: Sequence[Mapping[str, Any]]
    pictures: bool
    price: tuple[float, str] | None


def render(page: Page) -> str:
    """The HTML file."""
    sections = [
        ("overview", "In short", _overview(page)),
        ("look", "Map and images", _look(page)),
        ("truth", "Compared with the truth", _truth(page)),
        ("figures", "Evaluation", _figures(page)),
        ("rejects", "Refused images", _rejects(page)),
        ("work", "Time and cost", _work(page)),
        ("audit", "Who asked for this", _audit(page)),
        ("limits", "What you must not conclude", _limits(page)),
    ]
    head = f"Ranking <bdi>{markup.text(page.ranking)}</bdi> · page made {markup.text(page.made_at)}"
    return markup.document(
        page.title, head, ("h-images", "Skip to the images"), sections, ["page.css"], ("page.js", _data(page))
    )


def _figure(value: float | None, digits: int) -> float | None:
    """A number of the data block: what a reader can tell apart, and no more bytes."""
    return None if value is None else float(f"{value:.{digits}g}")


def _data(page: Page) -> dict[str, Any]:
    """What the script shows, by columns."""
    rows = page.images
    sources = sorted({row["source"] for row in rows})
    place = {source: k for k, source in enumerate(sources)}

    def degrees(values: Iterable[float | None]) -> list[float | None]:
        return [None if value is None else round(value, 3) for value in values]

    return {
        "sources": sources,
        "images": {
            "source": [place[row["source"]] for row in rows],
            "name": [row["image_id"] for row in rows],
            "copy": {str(k): row["copy_of"] for k, row in enumerate(rows) if row["copy_of"] is not None},
            "lat": degrees(row["lat"] for row in rows),
            "lon": degrees(row["lon"] for row in rows),
            "km": [_figure(row["expected_km"], 3) for row in rows],
            "half": [_figure(row["area_50_km2"], 4) for row in rows],
            "most": [_figure(row["area_90_km2"], 4) for row in rows],
            "regions": [row["regions"] for row in rows],
            "doubts": {str(k): doubts for k, row in enumerate(rows) if (doubts := _doubts(row))},
        },
        "details": {str(k): _detail(one) for k, one in page.details.items()},
        "cells": page.cells,
        "outline": page.outline,
    }


def _detail(one: Mapping[str, Any]) -> dict[str, Any]:
    regions = [
        [rank, *(_figure(value, 4) for value in figures[:4]), *(round(value, 3) for value in figures[4:])]
        for rank, *figures in one["regions"]
    ]
    found: dict[str, Any] = {"all": one["of_all"], "regions": regions}
    if "jpeg" in one:
        found["jpeg"] = base64.b64encode(one["jpeg"]).decode()
    if "truth" in one:
        found["truth"] = [round(value, 4) for value in one["truth"]]
    return found


def _doubts(row: Mapping[str, Any]) -> list[str]:
    told = {
        "no_evidence": "no model has said anything about it: any place is as probable as another, but for priors",
        "contradiction": "the models exclude each other everywhere: there is no answer",
        "claim_contradicts": "the position in its EXIF does not fit the answer",
        "out_of_domain": "its answer is vaguer than those of the images that set the thresholds",
        "cut_short": "its answer has more regions than the tables hold",
    }
    return [words for name, words in told.items() if row[name]]


def _overview(page: Page) -> str:
    counts = page.counts
    facts = [
        ("images", f"{counts['images']:,}"),
        ("half of the probability in", f"{markup.number(counts['area_50_km2'])} km²"),
        ("nine tenths in", f"{markup.number(counts['area_90_km2'])} km²"),
        ("expected distance of the best point", f"{markup.number(counts['expected_km'])} km"),
        ("copies of images answered before", f"{counts['copies']:,}"),
        ("without evidence", f"{counts['no_evidence']:,}"),
        ("models exclude each other", f"{counts['contradiction']:,}"),
    ]
    if counts["claims"]:
        facts.append(("EXIF position does not fit", f"{counts['claim_contradicts']:,} of {counts['claims']:,}"))
    if counts["domains"]:
        facts.append(("vaguer than the calibration images", f"{counts['out_of_domain']:,} of {counts['domains']:,}"))
    notes = ["Areas and distances are medians over the images."]
    if len(page.images) < counts["images"]:
        notes.append(
            f"The list has a sample of {len(page.images):,} of {counts['images']:,} images, drawn by the hash of "
            "source and id; the map and all figures count every image."
        )
    notes.append(
        f"The regions of {len(page.details):,} images are in this page, at most {page.most_regions:,} of each; those "
        "of all are in the table ranked_regions."
    )
    runs = [
        (f"<bdi>{markup.text(name)}</bdi>", markup.text(at[:19].replace("T", " ")), f"{n:,}")
        for name, at, n in page.runs[-20:]
    ]
    more = len(page.runs) - len(runs)
    caption = "Runs whose answers are shown" + (f" (the latest {len(runs)}; {more:,} earlier ones)" if more else "")
    table = markup.table(caption, ["run", "committed, UTC", "images"], runs, (2,))
    return markup.facts(facts) + "".join(f"<p>{escape(note)}</p>" for note in notes) + table


def _look(page: Page) -> str:
    coarse: dict[tuple[int, int], int] = {}
    for n, lat, lon in page.cells:
        corner = (int(lat // _COARSE_DEG) * _COARSE_DEG, int(lon // _COARSE_DEG) * _COARSE_DEG)
        coarse[corner] = coarse.get(corner, 0) + n
    fullest = sorted(coarse.items(), key=lambda item: (-item[1], item[0]))[:_PLACES]
    places = markup.table(
        f"Images by part of the Earth, {_COARSE_DEG}° × {_COARSE_DEG}°: the {len(fullest)} with most best points",
        ["latitude", "longitude", "images"],
        [(_span(south, "N", "S"), _span(west, "E", "W"), f"{n:,}") for (south, west), n in fullest],
        (2,),
    )
    pictures = "" if page.pictures else "<p>This page has no pictures: none were asked for.</p>"
    return f"""
<div class="work">
<div class="mapside">
<h3 id="h-map">Map</h3>
<p id="map-help">Each dot counts the images whose best points lie in one cell of 1°, at the mean of these points. With
the map in focus: arrow keys move it, + and − zoom, 0 shows the whole Earth. The table below the map says the same in
words.</p>
<div class="tools" role="group" aria-label="Map tools"><button type="button" id="zoom-in">Zoom in</button>
<button type="button" id="zoom-out">Zoom out</button><button type="button" id="whole">Whole Earth</button>
<button type="button" id="to-image" disabled>Chosen image</button></div>
<div id="map" tabindex="0" role="application" aria-roledescription="map" aria-label="Map of the answers"
aria-describedby="map-help"><canvas id="canvas" aria-hidden="true"></canvas><p id="scale" aria-hidden="true"></p></div>
<details><summary>The map in words</summary>{places}</details>
</div>
<div class="listside">
<h3 id="h-images" tabindex="-1">Images</h3>
<form id="find" role="search"><label for="filter">Filter by name or source</label>
<input id="filter" type="search" autocomplete="off" spellcheck="false">
<label class="check"><input id="only" type="checkbox"> only images with regions in this page</label></form>
<p id="found" role="status"></p>
<table id="list" aria-labelledby="h-images"><thead><tr>
<th scope="col" aria-sort="none"><button type="button" data-key="name">image</button></th>
<th scope="col" aria-sort="none"><button type="button" data-key="source">source</button></th>
<th scope="col" class="number" aria-sort="none"><button type="button" data-key="half">half in, km²</button></th>
<th scope="col" class="number" aria-sort="none"><button type="button" data-key="most">nine tenths in, km²</button></th>
</tr></thead><tbody id="rows"></tbody></table>
<div class="tools" role="group" aria-label="Pages of the list"><button type="button" id="before">Previous</button>
<span id="page"></span><button type="button" id="next">Next</button></div>
<p class="hint">In the list, the up and down arrow keys move, Enter chooses.</p>
</div>
<div class="chosen" id="chosen" role="region" aria-labelledby="h-chosen">
<h3 id="h-chosen">Chosen image</h3><p id="said" role="status" aria-live="polite">No image is chosen yet.</p>{pictures}
<div id="chosen-body"></div></div>
</div>
<noscript><p>The map and the list need the script inside this page, which this browser does not run.</p></noscript>
"""


def _span(low: int, positive: str, negative: str) -> str:
    """An interval of degrees in words; it never holds 0 inside."""
    ends = sorted((abs(low), abs(low + _COARSE_DEG)))
    return f"{ends[0]}° to {ends[1]}° {positive if low >= 0 else negative}"


def _truth(page: Page) -> str:
    if not page.truth_asked:
        return (
            "<p>No truth is known: the page was made without known positions, so nothing here says how good answers "
            "are.</p>"
        )
    if page.compared is None:
        return "<p>No truth is known: none of these images has a position in the table images.</p>"
    found = page.compared
    share = found.censored / found.images
    levels = [f"{km:,.0f} km" for km in found.within]
    within = markup.table(
        "Best points near the truth",
        ["distance at most", "share of images"],
        [(level, f"{value:.1%}") for level, value in zip(levels, found.within.values(), strict=True)],
        (1,),
    )
    area, mass = found.area, found.reliability
    assert area.low is not None and area.high is not None and mass.low is not None and mass.high is not None
    picks = [int(abs(area.x - km2).argmin()) for km2, _ in _AREAS_KM2]
    by_area = markup.table(
        "Recall by area searched",
        ["area, km²", "known", "at most"],
        [(f"{area.x[k]:,.0f}", f"{area.low[k]:.1%}", f"{area.high[k]:.1%}") for k in picks],
        (0, 1, 2),
    )
    by_mass = markup.table(
        "Truth inside the leading regions that hold a stated probability",
        ["stated", "known", "at most"],
        [(f"{mass.x[k]:.0%}", f"{mass.low[k]:.1%}", f"{mass.high[k]:.1%}") for k in (1, 4, 9, 14, 17)],
        (1, 2),
    )
    percent = [(level, f"{level:.0%}") for level in (0.05, 0.25, 0.5, 0.75, 0.95)]
    name = "Recall over the area searched; the table has its figures"
    recall = chart(area, "area searched, km²", name, _AREAS_KM2, log=True, diagonal=False)
    name = "Share of truths over stated probability; the table has its figures"
    worth = chart(mass, "stated probability", name, percent, log=False, diagonal=True)
    return f"""
<p>{found.images:,} images have a known position, from the table images. Positions from EXIF can be wrong, too.</p>
<p>Of {found.censored:,} images ({share:.1%}) the answer ends before the truth. What lies beyond its end is not in the
tables, so the line counts them as never found, and the band's upper edge as if the truth came next. The true curve lies
between. A position's region is the one with the largest share of its pixel of the overlay.</p>
<div class="charts"><figure><figcaption>Recall over the area searched</figcaption>
{recall}
{by_area}</figure>
<figure><figcaption>Stated probability and what it is worth</figcaption>
{worth}
<p>On the dashed line, statements are true. Regions are whole, so they hold a little more than stated: a curve slightly
above the line is right.</p>{by_mass}</figure></div>{within}"""


def _figures(page: Page) -> str:
    if not page.figures:
        return "<p>No evaluation was asked for.</p>"
    rows = []
    for one in page.figures:
        ends = f"{markup.number(one['low'])} to {markup.number(one['high'])}"
        told = [
            markup.text(one["protocol"]),
            markup.text(one["metric"]),
            markup.number(one["threshold_km"]),
            markup.number(one["value"]),
            ends,
        ]
        rows.append([f"<bdi>{markup.text(one['system'])}</bdi>", *told, f"{one['n']:,}"])
    heads = ["system", "protocol", "metric", "within, km", "value", "interval", "images"]
    note = "<p>Systems are as job evaluate names them; whether one of them is this ranking, the page cannot know.</p>"
    return note + markup.table("Figures over all images, from the table evaluations", heads, rows, (3, 4, 5, 6))


def _rejects(page: Page) -> str:
    if not page.rejects:
        return "<p>No image was refused in these runs.</p>"
    rows = []
    for one in page.rejects:
        name = one["uri"] if one["uri"] is not None else one["id"]
        example = "–" if name is None else f"<bdi>{markup.text(name)}</bdi>"
        rows.append((markup.text(one["error_class"]), f"{one['n']:,}", example, markup.text(one["message"] or "–")))
    return markup.table(
        "Refused images by reason, with an example", ["reason", "images", "example", "in words"], rows, (1,)
    )


def _work(page: Page) -> str:
    parts = []
    for report in page.reports:
        seconds = report["seconds"]
        total = sum(seconds.values())
        if not total:
            continue
        n = report["rows_in"] or 0
        facts = [("job", markup.text(report["job"])), ("seconds", markup.number(total)), ("images", f"{n:,}")]
        facts.append(("images per second", markup.number(n / total)))
        if page.price is not None:
            hour, currency = page.price
            cost = hour * total / 3600
            facts.append(("cost", f"{markup.number(cost)} {markup.text(currency)}"))
            if n:
                facts.append(("cost of a million images", f"{markup.number(cost / n * 1e6)} {markup.text(currency)}"))
        stages = [(markup.text(name), markup.number(one), f"{one / total:.0%}") for name, one in seconds.items()]
        parts.append(f"<h3>Run <bdi>{markup.text(report['run_id'])}</bdi></h3>" + markup.facts(facts))
        caption = f"Stages of run {shown(str(report['run_id']))}"
        parts.append(markup.table(caption, ["stage", "seconds", "share"], stages, (1, 2)))
        parts += [f"<p>Warning: {markup.text(warning)}</p>" for warning in report["warnings"]]
    if not parts:
        return "<p>The runs left no report of their time.</p>"
    note = "" if page.price else "<p>No price per hour was given, so there is no cost.</p>"
    return "".join(parts) + note


def _audit(page: Page) -> str:
    if not page.audit:
        return (
            "<p>There is no audit record of these runs: rank_regions ranks predictions that were made elsewhere, and "
            "only geolocate_archive leaves one.</p>"
        )
    parts = []
    for row in page.audit:
        facts = [(name.replace("_", " "), f"<bdi>{_told(value)}</bdi>") for name, value in row.items()]
        parts.append(f"<h3>Run <bdi>{markup.text(row['run_id'])}</bdi></h3>" + markup.facts(facts))
    return "".join(parts)


def _told(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "<br>".join(_told(one) for one in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(_told(one) for one in value.values())
    return f"{value:,}" if isinstance(value, int) else markup.text(value)


_LIMITS = (
    "That an image was taken at its best point. The point is the one with the least expected distance; the answer is "
    "the list of regions, and the image may have been taken in any of them, or outside of all.",
    "That the first region is the right one. It is the densest: the most probability per square kilometre, and often a "
    "small share of all.",
    "Who took a photograph, who is in it, or where a person lives, works or is. The answers say nothing about people, "
    "and must not be used to find, follow or decide about them.",
    "That a position which does not fit is a forgery, or that one which fits is genuine. Cameras and programs write "
    "wrong positions, and models err.",
    "That probabilities are right where no truth was compared. Models know what they were trained on: mostly rich and "
    "touristic places.",
    "That images of one place are independent witnesses. Copies and photographs of one moment repeat one error.",
    "That what is missing here was not there. Refused images and images without evidence have no answer, and a sample "
    "is no full list.",
)


def _limits(page: Page) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in _LIMITS)
    return (
        f"<ul>{items}</ul><p>A claim that matters needs evidence of another kind, and a person who answers for it.</p>"
    )
