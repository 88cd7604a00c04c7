"""The summary of an evaluation for human readers: a Markdown text, and an HTML page with curves.

The page loads no other files. All text is escaped, because names come from users' files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from geosieve.evaluation.curves import COLOURS, Curve, draw, svg
from geosieve.evaluation.estimates import ALL
from geosieve.evaluation.measures import RECALL_VS_AREA, REVERSE_GEOCODER
from geosieve.evaluation.protocols import THRESHOLDS_KM

_TITLE = "Evaluation"
_EXCLUDES_0 = " *"
_LEGEND = 5  # number of points of a curve whose recall is given in the legend
_PLACES = ("hit_country", "hit_region", "hit_area", "hit_city")
_SHARES = ("recall", "area_recall", "aurc", *_PLACES)
_STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 sans-serif;max-width:95em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0}"
    "th,td{border:1px solid #8886;padding:.2em .6em;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}summary{font-size:1.2em;font-weight:bold;cursor:pointer}"
    "details{margin:1em 0}.wide{overflow-x:auto}svg{background:#fff;max-width:100%;height:auto;border-radius:4px}"
    ".swatch{display:inline-block;width:1em;height:.7em;margin-right:.4em}mark{background:#ffd54a;color:#000}"
)

Row = Mapping[Hashable, Any]
"""A row of `evaluations`."""


class Table(NamedTuple):
    """Column heads and rows of a table, as plain text. The first `names` columns identify a row; the rest are counts
    and figures.
    """

    heads: list[str]
    rows: list[list[str]]
    names: int


def markdown(figures: pd.DataFrame, notes: Sequence[str]) -> str:
    """The summary as Markdown: the notes, then one section per table."""
    parts = [f"# {_TITLE}", *notes]
    for title, table in _sections(figures):
        lines = [table.heads, ["---"] * len(table.heads), *table.rows]
        parts += [f"## {_plain(title)}", "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def html(figures: pd.DataFrame, notes: Sequence[str]) -> str:
    """The summary as one self-contained HTML page: notes, table of contents, curves, and one collapsible table per
    section.
    """
    sections = [(title, _curve(group, x, label)) for title, group, x, label in _curves(figures)]
    first_table = len(sections)
    sections += [(title, _html_table(table)) for title, table in _sections(figures)]
    contents = "".join(f'<li><a href="#s{n}">{escape(title)}</a></li>' for n, (title, _) in enumerate(sections))
    body = [f"<h1>{_TITLE}</h1>", *(f"<p>{escape(note)}</p>" for note in notes), f"<nav><ul>{contents}</ul></nav>"]
    for number, (title, content) in enumerate(sections):
        opened = " open" if number <= first_table else ""
        body.append(f'<details id="s{number}"{opened}><summary>{escape(title)}</summary>{content}</details>')
    # A link in the table of contents also opens the section to which it leads.
    script = "addEventListener('hashchange',()=>{const d=document.querySelector(location.hash);if(d)d.open=true})"
    head = f'<meta charset="utf-8"><title>{_TITLE}</title><style>{_STYLE}</style><script>{script}</script>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _curves(figures: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str, str]]:
    """Yield what each picture of curves needs: its title, its rows, the column of the x axis, and the axis label."""
    for metric, x, label in (
        ("recall_curve", "threshold_km", "distance, km"),
        ("area_curve", "area_km2", "area searched, km²"),
    ):
        for balance, group in _variants(figures[(figures["metric"] == metric) & figures["compared_to"].isna()]):
            yield f"Recall by {label} ({group['protocol'].iloc[0]}{balance})", group, x, label


def _curve(rows: pd.DataFrame, x: str, label: str) -> str:
    """A picture of curves as HTML, with a legend that gives each system's recall at a few points along the x axis."""
    curves, legend = {}, []
    for number, (system, curve) in enumerate(rows.groupby("system", sort=False)):
        columns = (curve.sort_values(x)[name].to_numpy(np.float64) for name in (x, "value", "low", "high"))
        curves[str(system)] = drawn = Curve(*columns)
        swatch = f'<span class="swatch" style="background:{COLOURS[number % len(COLOURS)]}"></span>'
        at = np.unique(np.linspace(0, drawn.x.size - 1, _LEGEND).round().astype(int))
        cells = "".join(f"<td>{100 * drawn.recall[k]:.1f} %</td>" for k in at)
        legend.append(f"<tr><td>{swatch}{escape(str(system))}</td>{cells}</tr>")
        heads = "".join(f"<th>{_short(drawn.x[k])}</th>" for k in at)
    table = f"<table><tr><th>recall at {escape(label)}</th>{heads}</tr>{''.join(legend)}</table>"
    return svg(draw(curves, label)) + f'<div class="wide">{table}</div>'


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.3g}"


def _html_table(table: Table) -> str:
    """A table as HTML. Differences whose interval excludes 0 are highlighted."""
    lines = ""
    for row in table.rows:
        cells = [escape(cell) for cell in row]
        cells[table.names :] = map(_marked, cells[table.names :])
        lines += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    head = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
    return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _marked(cell: str) -> str:
    return f"<mark>{cell}</mark>" if cell.endswith(_EXCLUDES_0) else cell


def _variants(figures: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The figures over all images, unbalanced and, if there are any, balanced; each with words to add to a title."""
    whole = figures[figures["stratum"] == ALL]
    balanced = whole[whole["balanced_by"].notna()]
    found = [("", whole[whole["balanced_by"].isna()])]
    if len(balanced):
        found.append((f", balanced by {balanced['balanced_by'].iloc[0]}", balanced))
    return [(words, rows) for words, rows in found if len(rows)]


def _sections(figures: pd.DataFrame) -> list[tuple[str, Table]]:
    """Title and table for each protocol: over all images, then by each stratum."""
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
"""A column of a table: its head, the metric, and the threshold in km."""

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
    """A table with a row for each system and each difference of systems; the cells are figures with their intervals."""
    present = [c for c in columns if (figures["metric"] == c[1]).any()]
    rows = []
    keys = ["stratum_value", "balanced_by", "system", "compared_to"]
    for _, group in figures.groupby(keys, sort=False, dropna=False):
        records = group.to_dict("records")
        cells = {(row["metric"], None if pd.isna(row["threshold_km"]) else row["threshold_km"]): row for row in records}
        first, images = records[0], max(row["n"] for row in records)
        # Of a difference they would be sums over both systems, whose own rows have them.
        own = pd.isna(first["compared_to"])
        without = [f"{first['missing'] - first['refused']:,}", f"{first['refused']:,}"] if own else ["–", "–"]
        rows.append([*names(first), f"{images:,}", *without, *(_cell(cells.get((c[1], c[2]))) for c in present)])
    return Table([*heads, "images", "no prediction", "refused", *(c[0] for c in present)], rows, len(heads))


def _cell(row: Row | None) -> str:
    """A figure with its interval. A difference whose interval excludes 0 gets a star."""
    if row is None or pd.isna(row["value"]):
        return "–"
    differs = not pd.isna(row["compared_to"]) and (row["low"] > 0 or row["high"] < 0)
    factor, unit, digits = (100, " %", 2) if row["metric"] in _SHARES else (1, "", 1)
    ends = ("–" if pd.isna(row[end]) else f"{factor * row[end]:.{digits}f}" for end in ("low", "high"))
    return f"{factor * row['value']:.{digits}f}{unit} [{', '.join(ends)}]{_EXCLUDES_0 if differs else ''}"


def _plain(text: str) -> str:
    """Escape text for Markdown, including tables."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text.replace("\n", " "))
