"""Parts of pages as HTML: one file that asks for nothing from anywhere.

A strict policy is part of a page: no request of any kind, no script and no style but its own, which it names by their
hashes, and no markup made of text. What comes from data is escaped here, or stands in a block of JSON that the script
shows as text only.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from geosieve.reporting.shown import script_json, shown
from geosieve.runtime.errors import redact

_FOLDER = Path(__file__).parent / "page"


def document(
    title: str,
    head: str,
    skip: tuple[str, str],
    sections: Sequence[tuple[str, str, str]],
    styles: Sequence[str],
    script: tuple[str, Any] | None = None,
) -> str:
    """A whole page.

    `title`: text. `head`: HTML of the line below it. `skip`: where the first link leads, and its text. `sections`: id,
    heading and HTML of each. `styles`: files of the folder `page`. `script`: one of them, and its data.
    """
    style = "".join((_FOLDER / name).read_text("utf-8") for name in styles)
    code = None if script is None else (_FOLDER / script[0]).read_text("utf-8")
    scripts = "" if code is None else f"script-src '{_hash(code)}'; "
    policy = (
        f"default-src 'none'; {scripts}style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    title = escape(shown(title))
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections)
    body = "\n".join(
        f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{escape(heading)}</h2>{content}</section>'
        for name, heading, content in sections
    )
    data = ""
    if script is not None:
        data = f"""<script type="application/json" id="data">{script_json(script[1])}</script>
<script>{code}</script>
"""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><a class="skip" href="#{skip[0]}">{escape(skip[1])}</a>
<header><h1>{title}</h1><p>{head}</p></header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}
</main>
{data}</body></html>
"""


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def text(value: Any) -> str:
    """A value from data as HTML text."""
    return escape(shown(redact(str(value))))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:,.{digits}g}"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Pairs of a name and HTML."""
    return '<dl class="facts">' + "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in rows) + "</dl>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of HTML cells; the first of a row is its head. `numbers`: columns aligned to the right."""
    head = "".join(f'<th scope="col"{_right(k, numbers)}>{escape(text)}</th>' for k, text in enumerate(heads))
    body = ""
    for row in rows:
        cells = "".join(f"<td{_right(k, numbers)}>{cell}</td>" for k, cell in enumerate(row[1:], 1))
        body += f'<tr><th scope="row"{_right(0, numbers)}>{row[0]}</th>{cells}</tr>'
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _right(column: int, numbers: Sequence[int]) -> str:
    return ' class="number"' if column in numbers else ""
