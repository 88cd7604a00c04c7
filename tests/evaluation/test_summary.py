"""The summary for people: what its page says of figures that were made up here."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from geosieve.evaluation.summary import html, markdown

_ALL = {"stratum": "all", "stratum_value": "all", "balanced_by": None, "compared_to": None, "area_km2": None}


def figure(system: str, metric: str, value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    row = {**_ALL, "protocol": "pigeon", "threshold_km": None, "n": 1000, "missing": 50, "refused": 8, **more}
    return {**row, "system": system, "metric": metric, "value": value, "low": low, "high": high}


@pytest.fixture(scope="module")
def figures() -> pd.DataFrame:
    rows = []
    for system in ("a", "$x_<b>"):
        rows += [figure(system, "recall", 0.3, 0.28, 0.32, threshold_km=km) for km in (1.0, 25.0)]
        rows.append(figure(system, "mean_km", 300.0, 250.0, 350.0, n=950))
        rows += [
            figure(system, "recall_curve", km / 1000, km / 1000, km / 1000, threshold_km=km, protocol="geoestimation")
            for km in np.geomspace(1, 1000, 7)
        ]
    rows.append(figure("$x_<b>", "recall", -0.05, -0.08, -0.02, threshold_km=1.0, compared_to="a"))
    rows.append(figure("$x_<b>", "recall", -0.01, -0.03, 0.02, threshold_km=25.0, compared_to="a"))
    return pd.DataFrame(rows)


def test_differences_are_marked_where_their_interval_excludes_0(figures: pd.DataFrame) -> None:
    page = html(figures, [])
    assert re.findall(r"<mark>(.*?)</mark>", page) == ["-5.00 % [-8.00, -2.00] *"]
    assert r"\[-8.00, -2.00\] \* |" in markdown(figures, []) and r"\[-3.00, 2.00\] |" in markdown(figures, [])


def test_a_systems_name_is_not_taken_for_a_mark(figures: pd.DataFrame) -> None:
    page = html(figures.replace({"system": {"a": "a *"}}), [])
    assert re.findall(r"<mark>(.*?)</mark>", page) == ["-5.00 % [-8.00, -2.00] *"]


def test_images_without_an_answer_stand_in_their_row(figures: pd.DataFrame) -> None:
    page = html(figures, [])
    assert "<th>images</th><th>no prediction</th><th>refused</th>" in page
    assert "<td>a</td><td>1,000</td><td>42</td><td>8</td>" in page


def test_the_table_of_contents_leads_to_every_section_and_one_table_is_open(figures: pd.DataFrame) -> None:
    page = html(figures, [])
    links, sections = re.findall(r'href="#(s\d+)"', page), re.findall(r'<details id="(s\d+)"( open)?>', page)
    assert links == [number for number, _ in sections]
    assert [bool(opened) for _, opened in sections] == [True, True, False]  # curves, one protocol, the other


def test_names_of_others_are_text_in_tables_and_pictures(figures: pd.DataFrame) -> None:
    page = html(figures, ["<script>alert(1)</script>"])
    assert "<b>" not in page and "<script>alert" not in page and "$x_&lt;b&gt;" in page


def test_the_legend_has_each_systems_recall(figures: pd.DataFrame) -> None:
    (legend,) = re.findall(r"<table><tr><th>recall at.*?</table>", html(figures, []))
    assert legend.count("swatch") == 2 and "<th>1,000</th>" in legend and "<td>100.0 %</td>" in legend
