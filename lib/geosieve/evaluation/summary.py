"""The summary of an evaluation for people: Markdown, and one HTML page with its curves drawn as SVG.

The page loads nothing from anywhere. Names come from other people's files, so that all text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from geosieve.evaluation.estimates import ALL
from geosieve.evaluation.measures import RECALL_VS_AREA, REVERSE_GEOCODER
from geosieve.evaluation.protocols import THRESHOLDS_KM

_TITLE = "Evaluation"
_PLACES = ("hit_country", "hit_region", "hit_area", "hit_city")
_SHARES = ("recall", "area_recall", "aurc", *_PLACES)
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 320, 50, 40
# Okabe and Ito's palette: told apart also by readers who do not see all colours.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

Row = Mapping[Hashable, Any]
"""A row of `evaluations`."""

Table = tuple[list[str], list[list[str]]]
"""Heads and rows of a table, as plain text."""


def markdown(figures: pd.DataFrame, notes: Sequence[str]) -> str:
    """The summary as Markdown: notes, then a table a section."""
    parts = [f"# {_TITLE}", *notes]
    for title, (heads, rows) in _sections(figures):
        lines = [heads, ["---"] * len(heads), *rows]
        parts += [f"## {_plain(title)}", "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def html(figures: pd.DataFrame, notes: Sequence[str]) -> str:
    """The summary as one self-contained page, with curves."""
    body = [f"<h1>{_TITLE}</h1>", *(f"<p>{escape(note)}</p>" for note in notes)]
    for metric, x, label in (
        ("recall_curve", "threshold_km", "distance, km"),
        ("area_curve", "area_km2", "area searched, km²"),
    ):
        for balance, group in _variants(figures[(figures["metric"] == metric) & figures["compared_to"].isna()]):
            title = f"Recall by {label} ({group['protocol'].iloc[0]}{balance})"
            body += [f"<h2>{escape(title)}</h2>", _svg(group, x, label)]
    for title, (heads, rows) in _sections(figures):
        cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
        lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        body += [f"<h2>{escape(title)}</h2>", f"<table><tr>{cells}</tr>{lines}</table>"]
    style = (
        "body{font:15px/1.4 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}th,td{border:1px solid #ccc;padding:.2em .6em;text-align:right}"
        "td:first-child,th:first-child{text-align:left}"
    )
    head = f'<meta charset="utf-8"><title>{_TITLE}</title><style>{style}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _variants(figures: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Rows of all images as they are and, where there are any, balanced; with words for each."""
    whole = figures[figures["stratum"] == ALL]
    balanced = whole[whole["balanced_by"].notna()]
    found = [("", whole[whole["balanced_by"].isna()])]
    if len(balanced):
        found.append((f", balanced by {balanced['balanced_by'].iloc[0]}", balanced))
    return [(words, rows) for words, rows in found if len(rows)]


def _sections(figures: pd.DataFrame) -> list[tuple[str, Table]]:
    found = []
    for words, group in _variants(figures):
        for protocol in group["protocol"].unique():
            rows = group[group["protocol"] == protocol]
            found.append((f"{protocol}{words}", _table(rows, _COLUMNS.get(protocol, _DISTANCE), ["system"], _system)))
    divided = figures[figures["stratum"] != ALL]
    for stratum in divided["stratum"].unique():
        for protocol in divided["protocol"].unique():
            rows = divided[(divided["stratum"] == stratum) & (divided["protocol"] == protocol)]
            columns, heads = _COLUMNS.get(protocol, _DISTANCE), [stratum, "system"]
            found.append((f"{protocol} by {stratum}", _table(rows, columns, heads, _stratum_and_system)))
    return found


Column = tuple[str, str, float | None]
"""Head of a table's column, metric, and threshold."""

_DISTANCE: tuple[Column, ...] = (
    *((f"{km:g} km", "recall", km) for km in THRESHOLDS_KM),
    ("median km", "median_km", None),
    ("median km, answered", "median_answered_km", None),
    ("mean km", "mean_km", None),
    ("GeoScore", "geoscore", None),
)
_AREA: tuple[Column, ...] = (*((f"{km:g} km cap", "area_recall", km) for km in THRESHOLDS_KM), ("AURC", "aurc", None))
_PLACE: tuple[Column, ...] = tuple((name.removeprefix("hit_"), name, None) for name in _PLACES)

_COLUMNS = {RECALL_VS_AREA: _AREA, REVERSE_GEOCODER: _PLACE}


def _system(row: Row) -> list[str]:
    other = row["compared_to"]
    return [row["system"] if pd.isna(other) else f"{row['system']} − {other}"]


def _stratum_and_system(row: Row) -> list[str]:
    balance: str = "" if pd.isna(row["balanced_by"]) else f" (balanced by {row['balanced_by']})"
    return [f"{row['stratum_value']}{balance}", *_system(row)]


def _table(
    figures: pd.DataFrame, columns: Sequence[Column], heads: list[str], names: Callable[[Row], list[str]]
) -> Table:
    """Rows are systems, and differences of systems; cells are figures with their intervals."""
    present = [c for c in columns if (figures["metric"] == c[1]).any()]
    rows = []
    keys = ["stratum_value", "balanced_by", "system", "compared_to"]
    for _, group in figures.groupby(keys, sort=False, dropna=False):
        records = group.to_dict("records")
        cells = {(row["metric"], None if pd.isna(row["threshold_km"]) else row["threshold_km"]): row for row in records}
        images = f"{max(row['n'] for row in records):,}"
        rows.append([*names(records[0]), images, *(_cell(cells.get((c[1], c[2]))) for c in present)])
    return [*heads, "images", *(c[0] for c in present)], rows


def _cell(row: Row | None) -> str:
    if row is None or pd.isna(row["value"]):
        return "–"
    factor, unit, digits = (100, " %", 2) if row["metric"] in _SHARES else (1, "", 1)
    ends = ("–" if pd.isna(row[end]) else f"{factor * row[end]:.{digits}f}" for end in ("low", "high"))
    return f"{factor * row['value']:.{digits}f}{unit} [{', '.join(ends)}]"


def _plain(text: str) -> str:
    """Text that Markdown takes for text, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text.replace("\n", " "))


def _svg(curves: pd.DataFrame, x: str, label: str) -> str:
    """Recall (0 to 1) over the logarithm of `x`, a line a system, with its interval as a band."""
    logs = np.log10(curves[x].to_numpy(np.float64))
    first, last = float(logs.min()), float(logs.max())

    def across(log: float) -> float:
        return _LEFT + (log - first) / (last - first) * (_WIDTH - _LEFT - 10)

    def up(share: float) -> float:
        return 10 + (1 - share) * (_HEIGHT - 10 - _BOTTOM)

    def line(xs: pd.Series[float], shares: pd.Series[float]) -> str:
        return " ".join(f"{across(np.log10(a)):.1f},{up(b):.1f}" for a, b in zip(xs, shares, strict=True))

    drawn = []
    for share in np.linspace(0, 1, 6):
        y = up(share)
        drawn.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 10}" stroke="#ddd"/>')
        drawn.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for decade in range(int(np.ceil(first - 1e-9)), int(np.floor(last + 1e-9)) + 1):
        place, label_y = f"{across(decade):.1f}", _HEIGHT - _BOTTOM + 16
        drawn.append(f'<path d="M{place} 10V{_HEIGHT - _BOTTOM}" stroke="#ddd"/>')
        drawn.append(f'<text x="{place}" y="{label_y}" text-anchor="middle">{10.0**decade:,.0f}</text>')
    for k, (system, curve) in enumerate(curves.groupby("system", sort=False)):
        curve, colour = curve.sort_values(x), _COLOURS[k % len(_COLOURS)]
        band = line(curve[x], curve["high"]) + " " + line(curve[x][::-1], curve["low"][::-1])
        drawn.append(f'<polygon points="{band}" fill="{colour}" opacity="0.2"/>')
        points = line(curve[x], curve["value"])
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place = f'x="{_LEFT + 12}" y="{28 + 18 * k}" fill="{colour}"'
        drawn.append(f'<text {place} font-weight="bold">{escape(str(system))}</text>')
    drawn.append(f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>')
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(drawn)}</svg>'
