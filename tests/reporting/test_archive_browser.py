"""The page of `report_archive` in a browser: keyboard, screen reader, colours, and what it asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from browser import Browser
from required import skip_or_fail
from small_answers import HOSTILE

from geosieve.evaluation.curves import Curve
from geosieve.evaluation.measures import CURVE_KM2
from geosieve.reporting.outline import builtin_outline, land_outline
from geosieve.reporting.page import Page, render
from geosieve.reporting.shown import shown
from geosieve.reporting.truth import LEVELS, Compared

IMAGES = 120
NAMES = [*HOSTILE, *(f"image{k:04d}.jpg" for k in range(IMAGES - len(HOSTILE)))]
COUNTS = (
    "no_evidence",
    "contradiction",
    "cut_short",
    "copies",
    "claim_contradicts",
    "claims",
    "out_of_domain",
    "domains",
)


def page() -> Page:
    """A page with all that can be on one; image k has k % 5 + 1 regions, except image 3, which has no answer."""
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-70, 75, IMAGES), rng.uniform(-180, 180, IMAGES)
    images, details = [], {}
    for k, name in enumerate(NAMES):
        n = 0 if k == 3 else k % 5 + 1
        figures = {
            "lat": lat[k],
            "lon": lon[k],
            "expected_km": 50.0 + k,
            "area_50_km2": 100.0 + k,
            "area_90_km2": 900.0,
        }
        if k == 3:
            figures = dict.fromkeys(figures)
        flags = {"no_evidence": False, "contradiction": k == 3, "claim_contradicts": k == 4, "out_of_domain": False}
        images.append(
            {"source": "s<b>", "image_id": shown(name), "copy_of": shown(NAMES[0]) if k == 5 else None, "regions": n}
            | {"cut_short": k == 6, **figures, **flags}
        )
        if k < 100:
            boxes = [(lat[k] + 2 * j, lon[k] + 2 * j) for j in range(n)]
            regions = [
                [j + 1, 0.4 / (j + 1), 500.0 * (j + 1), 0.5, 900.0, y, x, y - 1, x - 1, y + 1, x + 1]
                for j, (y, x) in enumerate(boxes)
            ]
            details[k] = {"of_all": n, "regions": regions}
    share = np.linspace(0, 0.9, len(CURVE_KM2))
    curve = Curve(np.array(CURVE_KM2), share, share, np.minimum(share + 0.1, 1))
    level = np.array(LEVELS)
    details[1]["jpeg"] = simplejpeg.encode_jpeg(np.full((24, 32, 3), 99, np.uint8), 70)
    details[1]["truth"] = (lat[1] + 1, lon[1] + 1)
    compared = Compared(IMAGES, 9, curve, Curve(level, level, level, level), {1.0: 0.1, 25.0: 0.5})
    outline = builtin_outline()
    counts: dict[str, Any] = {"images": IMAGES, **dict.fromkeys(COUNTS, 3)}
    counts |= {"area_50_km2": 150.0, "area_90_km2": 900.0, "expected_km": 80.0}
    return Page(
        title="</title><script>window.hacked=1</script>",
        ranking="r</script>",
        made_at="2026-11-26",
        runs=[("r1", "2026-11-26T10:00:00Z", IMAGES)],
        counts=counts,
        cells=[(1, float(a), float(b)) for a, b in zip(lat, lon, strict=True)] + [(1500, 48.0, 9.0)],
        images=images,
        details=details,
        most_regions=50,
        outline=[] if outline is None else land_outline(outline),
        truth_asked=True,
        compared=compared,
        figures=[
            {"system": "<s>", "protocol": "p", "metric": "recall", "threshold_km": 25.0, "value": 0.5, "n": 3}
            | {"low": None, "high": 0.6}
        ],
        rejects=[{"error_class": "<b>", "n": 5, "id": "x<script>", "uri": None, "message": "</td><script>"}],
        reports=[{"job": "j", "run_id": "r1", "rows_in": 120, "seconds": {"a": 2.0, "b": 4.0}, "warnings": ["<b>!"]}],
        audit=[{"user": "<i>me", "host": "h", "images": 120, "predictors": [{"member": "<u>"}], "run_id": "r1"}],
        pictures=True,
        price=(2.0, "EUR"),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("page") / "page.html"
    found.write_text(render(page()), "utf-8")
    return found


def view(browser: Browser) -> list[float]:
    """Latitude and longitude of the map's centre, and pixels per degree."""
    return [float(one) for one in browser.run("document.getElementById('map').dataset.view").split()]


def test_an_image_is_chosen_by_keyboard_and_its_regions_appear(opened: Browser) -> None:
    opened.run("document.getElementById('filter').focus()")
    opened.type("image00")
    assert opened.run("document.getElementById('found').textContent").startswith("100 of 120")
    for _ in range(30):  # the checkbox, the heads of the columns
        opened.press("Tab")
        if opened.focus().startswith("image00"):
            break
    assert opened.focus() == "image0000.jpg"
    opened.press("ArrowDown", "ArrowDown", "ArrowUp", "Enter")
    assert opened.focus() == "image0001.jpg"
    k = NAMES.index("image0001.jpg")
    rows = opened.run("document.querySelectorAll('#regions tbody tr').length")
    assert rows == k % 5 + 1
    said = opened.run("document.getElementById('said').textContent")
    assert said == f"image0001.jpg: {rows} regions; the first holds 40 % in 500 km²."
    lat, lon, scale = view(opened)
    image = page().images[k]
    assert abs(lat - image["lat"]) < 2 * rows and abs(lon - image["lon"]) < 2 * rows and scale > 20
    opened.press("Tab")  # the list has one stop: next come the pages of the list
    assert opened.focus() == "next"


def test_the_list_goes_on_beyond_its_page_and_sorts(opened: Browser) -> None:
    opened.run("document.querySelector('#rows button').focus()")
    opened.press("End", "ArrowDown")
    assert opened.run("document.getElementById('page').textContent") == "page 2 of 5"
    assert opened.focus() == shown(NAMES[25])
    opened.press("ArrowUp")
    assert opened.focus() == shown(NAMES[24])
    opened.run("document.querySelector('[data-key=half]').focus()")
    opened.press("Enter", "Enter")
    head = "document.querySelector('[data-key=half]').parentElement.getAttribute('aria-sort')"
    assert opened.run(head) == "descending"
    assert opened.run("document.querySelector('#rows button').textContent") == NAMES[-1]
    opened.run("document.querySelector('[data-key=name]').click()")
    opened.run("for (let k = 0; k < 9; k++) document.getElementById('next').click()")
    names = opened.run("[...document.querySelectorAll('#rows button')].map((one) => one.textContent)")
    assert names == sorted(names)


def test_an_image_without_an_answer_or_regions_says_so(opened: Browser) -> None:
    opened.run("[...document.querySelectorAll('#rows button')][3].click()")
    assert opened.run("document.getElementById('said').textContent") == f"{shown(NAMES[3])}: there is no answer."
    assert "exclude each other" in opened.run("document.getElementById('chosen-body').textContent")
    opened.run("document.getElementById('filter').value = 'image0112'")
    opened.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    opened.run("document.querySelector('#rows button').click()")
    assert "not in this page" in opened.run("document.getElementById('said').textContent")


def test_a_picture_and_a_known_position_are_shown(opened: Browser) -> None:
    opened.run("[...document.querySelectorAll('#rows button')][1].click()")
    assert opened.run("(async (one) => (await one.decode(), one.width))(document.querySelector('.thumb'))") == 32
    assert opened.run("document.querySelector('.thumb').alt") == f"Small copy of {shown(NAMES[1])}"
    assert "known position" in opened.run("document.getElementById('chosen-body').textContent")


def test_the_map_moves_and_zooms_by_keyboard_and_by_wheel(opened: Browser) -> None:
    opened.run("document.getElementById('map').focus()")
    _, _, start = view(opened)
    opened.press("+", "+")
    lat, lon, scale = view(opened)
    assert scale == pytest.approx(start * 1.6**2, rel=1e-3)
    opened.press("ArrowRight", "ArrowUp")
    assert view(opened) == pytest.approx([lat + 80 / scale, lon + 80 / scale, scale], abs=2e-3)
    for _ in range(60):
        opened.press("ArrowRight")
    assert -180 <= view(opened)[1] < 180  # around the Earth and on
    opened.press("-")
    assert view(opened)[2] == pytest.approx(scale / 1.6, rel=1e-3)
    opened.press("0")
    assert view(opened)[2] == pytest.approx(start, rel=1e-3)
    box = opened.run("(({left, top, width, height}) => [left, top, width, height])(map.getBoundingClientRect())")
    at = {"x": round(box[0] + 0.75 * box[2]), "y": round(box[1] + 0.5 * box[3])}
    before = view(opened)
    opened.call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=-400, **at)
    opened.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    after = view(opened)
    assert after[2] > before[2]
    # What is under the pointer stays there.
    from_centre = at["x"] - box[0] - opened.run("map.clientLeft + map.clientWidth / 2")
    held = [lon + from_centre / scale for _, lon, scale in (before, after)]
    assert held[0] == pytest.approx(held[1], abs=0.01)


def test_hostile_names_are_text(opened: Browser) -> None:
    shown_names = opened.run("[...document.querySelectorAll('#rows button')].map((one) => one.textContent)")
    assert shown_names[: len(HOSTILE)] == [shown(name) for name in HOSTILE]
    for k in range(len(HOSTILE)):
        opened.run(f"[...document.querySelectorAll('#rows button')][{k}].click()")
        assert opened.run("document.querySelector('#said bdi').textContent") == shown(HOSTILE[k])
    assert opened.run("document.querySelectorAll('script').length") == 2
    assert opened.run("document.querySelectorAll('td img, th img, #said *:not(bdi)').length") == 0
    assert opened.run("document.title") == "</title><script>window.hacked=1</script>"


def test_a_request_that_something_smuggled_in_makes_is_stopped(browser: Browser, path: Path) -> None:
    browser.open(path)
    failed = browser.run("fetch('http://127.0.0.1:9/x').then(() => 'sent', () => 'stopped')")
    assert failed == "stopped" and any("Content Security Policy" in line for line in browser.log)
    inner = "(() => { try { document.body.innerHTML = '<b>'; return 'set'; } catch (error) { return error.name; } })()"
    assert browser.run(inner) == "TypeError"  # trusted types
    loads = "new Promise((done) => { const i = new Image(); i.onload = () => done(1); i.onerror = () => done(0);"
    assert browser.run(f"{loads} i.src = 'http://127.0.0.1:9/x.png'; }})") == 0
    stylesheet = "document.head.append(Object.assign(document.createElement('style'), {textContent: 'p{color:red}'}))"
    browser.run(stylesheet)
    assert browser.run("getComputedStyle(document.querySelector('main p')).color") != "rgb(255, 0, 0)"


def test_a_screen_reader_finds_landmarks_headings_tables_and_what_was_chosen(opened: Browser) -> None:
    opened.run("[...document.querySelectorAll('#rows button')][1].click()")
    roles = opened.roles()
    for role, name in (
        ("banner", ""),
        ("navigation", "Sections"),
        ("main", ""),
        ("search", ""),
        ("region", "Map and images"),
        ("region", "Chosen image"),
        ("application", "Map of the answers"),
        ("heading", "What you must not conclude"),
        ("table", "Images"),
        ("columnheader", "half in, km²"),
        ("searchbox", "Filter by name or source"),
        ("image", "Recall over the area searched; the table has its figures"),
        ("button", "Show region 1 on the map"),
    ):
        assert (role, name) in roles, (role, name)
    assert [role for role, name in roles if role == "status"]
    opened.check_headings()
    assert not [role for role, name in roles if role in ("button", "searchbox", "link") and not name]
    assert opened.run("document.getElementById('said').getAttribute('aria-live')") == "polite"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast_and_focus_is_seen(browser: Browser, path: Path, dark: bool, tmp_path: Path) -> None:
    browser.open(path, dark)
    browser.run("[...document.querySelectorAll('#rows button')][1].click()")
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.check_contrast()
    light = sum(browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"))
    assert light < 200 if dark else light > 700
    browser.run("document.getElementById('map').focus()")
    browser.press("ArrowUp")
    assert browser.run("getComputedStyle(document.getElementById('map')).outlineStyle") == "solid"
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_page_without_an_outline_and_on_a_telephone(browser: Browser, tmp_path: Path) -> None:
    bare = tmp_path / "bare.html"
    bare.write_text(render(replace(page(), outline=[])), "utf-8")
    browser.open(bare, width=390, height=800)
    browser.run("document.querySelector('#rows button').click()")
    assert browser.log == []
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelectorAll('#regions tbody tr').length") == 1


def test_a_missing_browser_is_a_skip_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSIEVE_REQUIRE", "spark")
    with pytest.raises(pytest.skip.Exception, match="none here"):
        skip_or_fail("browser", "none here")
    monkeypatch.setenv("GEOSIEVE_REQUIRE", "trino,browser")
    with pytest.raises(pytest.fail.Exception, match="browser is required here: none here"):
        skip_or_fail("browser", "none here")
