"""Fixtures of tests that look at a page in a browser; such a module has a fixture `path`, the page's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def opened(browser: Browser, path: Path) -> Iterator[Browser]:
    """The page, just opened. Whatever a test does, nothing is asked for and nothing goes wrong."""
    browser.open(path)
    yield browser
    assert browser.run("window.hacked") is None
    assert browser.requests == [path.as_uri()] and browser.log == []
