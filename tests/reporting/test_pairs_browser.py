"""The page of `report_pairs` in a browser: pictures, maps, keyboard, screen reader, colours, and what it asks for."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from browser import Browser

from geosieve.reporting.pairs_page import AreaMap, PairsPage, Sample, render

HOSTILE = "<script>window.hacked=1</script>\u202egpj"
CELLS = [(0, 0, 1), (0, 2, 7), (3, 1, 100), (9, 19, 40)]


def figures(name: str | None, pairs: int) -> dict[str, Any]:
    return {"name": name, "pairs": pairs, "authors": 9, "places": 12, "first": 2008, "last": 2019}


def picture(level: int, width: int, height: int) -> bytes:
    rough = np.random.default_rng(level).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(np.kron(rough, np.ones((8, 8, 1), np.uint8))), 80)


def sample(k: int, **credit: Any) -> Sample:
    facts = {
        **{"area": HOSTILE if k == 0 else "Vienna", "split": "train", "licence": "cc-by-2.0", "author": "12@N0"},
        **{"lat": 48.2, "lon": 16.3, "captured_at": datetime(2014, 5, 6)},
        **{"chip_resolution_m": 0.3, "chip_width": 750},
    }
    return Sample(facts, credit or None, picture(k, 256, 192), picture(k + 50, 256, 256))


def page() -> PairsPage:
    """A page with all that can be on one."""
    return PairsPage(
        title="</title><script>window.hacked=1</script>",
        note="The photos are colours, <b>drawn</b> by a generator.",
        name="n<b>",
        run="r1",
        made_at="2026-11-27",
        images=400,
        licences_allowed=["cc-by-2.0", "<i>"],
        place_level=15,
        least_authors=3,
        counts={**figures(None, 200), "areas": 3, "anonymous": 5, "undated": 2},
        areas=[figures(HOSTILE, 148), figures("Vienna", 50), figures("Fiji", 2)],
        splits=[figures("train", 160), figures("test", 40)],
        licences=[figures("cc-by-2.0", 190), figures(None, 10)],
        authors={"of_ten": 90, "groups": [(0, 5, 5), (1, 10, 60), (2, 3, 130)]},
        places=[{**figures(None, 44), "lat": 48.2, "lon": -16.3, "area": HOSTILE}],
        maps=[
            AreaMap(HOSTILE, CELLS, 48.1, 16.2, 0.002, 0.003),
            AreaMap("Fiji", [(0, 0, 2)], -17.0, 179.999, 0.001, 0.001),
        ],
        samples=[
            sample(0, author_name="<i>me</i>", title=HOSTILE, page="https://photos.example/1?a=1&b=2"),
            sample(1, author_name=None, title=None, page="javascript:window.hacked=1"),
            *(sample(k) for k in range(2, 7)),
            replace(sample(7), facts={**sample(7).facts, "licence": "cc0-1.0"}),
        ],
        samples_asked=8,
        refused=[{"error_class": "no_chip", "n": 200, "message": "</td><script>window.hacked=1</script>"}],
        before={
            "chips": [{"error_class": "empty", "n": 3, "message": None}],
            "splits": [{"drawn": None, "outcome": "not_drawn", "images": 7}],
        },
        warnings=["<b>!"],
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "page.html"
    found.write_text(render(page()), "utf-8")
    return found


def test_pictures_stand_side_by_side_with_their_credit(opened: Browser) -> None:
    boxes = opened.run(
        "[...document.querySelectorAll('.two')].map((two) => [...two.children].map((one) => {"
        "const box = one.getBoundingClientRect(); return [box.left, box.right, box.top, one.naturalWidth]; }))"
    )
    assert len(boxes) == 8
    for (_, right, top, width), (left, _, other_top, other_width) in boxes:
        assert right < left and top == other_top and (width, other_width) == (256, 256)
    captions = opened.run("[...document.querySelectorAll('.pairs figcaption')].map((one) => one.textContent)")
    assert "<i>me</i>, cc-by-2.0" in captions[0] and "225 m across" in captions[0] and "⟨U+202E⟩" in captions[0]
    assert "by 12@N0, cc-by-2.0" in captions[1]
    assert "Photo cc0-1.0" in captions[7] and "12@N0" not in captions[7]  # asks for no name
    links = opened.run("[...document.querySelectorAll('.pairs a')].map((one) => [one.href, one.rel])")
    assert links == [["https://photos.example/1?a=1&b=2", "noreferrer noopener"]]


def test_a_map_shows_each_cell_at_its_place_in_a_shade_of_its_number(opened: Browser) -> None:
    cells = opened.run(
        "[...document.querySelector('.density').querySelectorAll('rect')].map((one) =>"
        "[Number(one.getAttribute('x')), Number(one.getAttribute('y')), one.className.baseVal])"
    )
    # North is up: the row of most north (9) is at y = 0. Shades end at 2.5, 6.3, 15.8, 39.8 and 100 pairs, rounded.
    assert cells == [[0, 9, "d1"], [2, 9, "d3"], [1, 6, "d5"], [19, 0, "d4"]]
    fills = opened.run("[1, 2, 3, 4, 5].map((k) => getComputedStyle(document.querySelector(`.swatch .d${k}`)).fill)")
    assert len(set(fills)) == 5
    words = opened.run("document.querySelector('.maps figcaption').textContent")
    assert "148 pairs in 4 cells of 222 m; at most 100 in one" in words
    assert "Latitude 48.100° N to 48.120° N, longitude 16.200° E to 16.260° E" in words
    fiji = opened.run("document.querySelectorAll('.maps figcaption')[1].textContent")
    assert "longitude 179.999° E to 180.000° W" in fiji.replace("-180.000° W", "180.000° W")


def test_hostile_texts_are_text_and_there_is_no_script(opened: Browser) -> None:
    assert opened.run("document.querySelectorAll('script').length") == 0
    assert opened.run("document.title") == "</title><script>window.hacked=1</script>"
    names = opened.run("[...document.querySelectorAll('#areas tbody th')].map((one) => one.textContent)")
    assert names == ["<script>window.hacked=1</script>⟨U+202E⟩gpj", "Vienna", "Fiji"]
    assert opened.run("document.querySelectorAll('td b, td i, header b').length") == 0


def test_keyboard_and_screen_reader_reach_everything(opened: Browser) -> None:
    opened.press("Tab")
    assert opened.focus() == "Skip to the pictures"
    opened.press("Enter", "Tab")
    assert opened.focus() == "its page"
    roles = opened.roles()
    for role, name in (
        *(("banner", ""), ("navigation", "Sections"), ("main", ""), ("region", "Areas"), ("region", "Some pairs")),
        *(("heading", "What you must not conclude"), ("table", "Pairs by split"), ("columnheader", "authors")),
        *(("image", "Photo taken in Vienna"), ("image", "The ground there from above, 225 m across")),
        ("image", "Density of photos, Fiji; the text below describes it"),
    ):
        assert (role, name) in roles, (role, name)
    opened.check_headings()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast_in_both_schemes(browser: Browser, path: Path, dark: bool, tmp_path: Path) -> None:
    browser.open(path, dark)
    browser.check_contrast()
    picture = Path(os.environ.get("PICTURES", tmp_path)) / f"pairs-{'dark' if dark else 'light'}.png"
    browser.picture(picture, whole=True)
    assert picture.stat().st_size > 50_000


def test_on_a_telephone_nothing_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    bare = tmp_path / "bare.html"
    bare.write_text(render(replace(page(), samples=[], samples_asked=0, splits=[], refused=[], before={})), "utf-8")
    browser.open(bare, width=390, height=800)
    assert browser.log == []
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert "none were asked for" in browser.run("document.getElementById('samples').textContent")
    assert "Every image became a pair" in browser.run("document.getElementById('left-out').textContent")
