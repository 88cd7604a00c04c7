"""Headless Chromium, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from required import skip_or_fail

_KEYS = {
    "Enter": 13,
    "Tab": 9,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Home": 36,
    "End": 35,
}
_SECONDS = 60.0

_CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = parse(getComputedStyle(node).backgroundColor);
      if (found.length < 4 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || node.closest('script, style, noscript, [disabled]')) continue;
    const style = getComputedStyle(node);
    const ink = parse(node.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()"""
"""Of every text: the ratio of its brightness to that of what is behind it (WCAG), and the text; the worst first."""


class Browser:
    """One page in a browser. `requests` are the addresses that it asked for, `log` what it wrote to its console."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._held, self._number, self._session = send, receive, b"", 0, ""
        self.requests: list[str] = []
        self.log: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command and its result; events that come before it are noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._receive, 1 << 20)
            assert more, "the browser has ended"
            self._held += more
        text, _, self._held = self._held.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, event: str | None, facts: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            address = facts["request"]["url"]
            if not address.startswith("data:"):  # inside the page already
                self.requests.append(address)
        elif event == "Log.entryAdded":
            self.log.append(facts["entry"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.log.append(str(facts["args"]))
        elif event == "Runtime.exceptionThrown":
            self.log.append(facts["exceptionDetails"].get("exception", {}).get("description", str(facts)))

    def open(self, path: Path, dark: bool = False, width: int = 1400, height: int = 1000) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.requests.clear()
        self.log.clear()
        self.call("Page.navigate", url=path.as_uri())
        end = time.monotonic() + _SECONDS
        while self.run("document.readyState") != "complete" or not self.run("location.href").startswith("file:"):
            assert time.monotonic() < end, "the page does not load"
            time.sleep(0.05)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            code = {"windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {}
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **code)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def focus(self) -> str:
        """What is in focus: its id, or else its text."""
        return str(self.run("document.activeElement.id || document.activeElement.textContent"))

    def picture(self, path: Path, whole: bool = False) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(found["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def roles(self) -> list[tuple[str, str]]:
        """(role, name) of what a screen reader meets, in order."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        shown = (node for node in nodes if not node["ignored"])
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]

    def check_headings(self) -> None:
        """There is one heading of the first level, the first one, and none is a level skipped."""
        levels = self.run("[...document.querySelectorAll('h1,h2,h3')].map((one) => Number(one.tagName[1]))")
        assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))

    def check_contrast(self) -> None:
        """All texts, more than a hundred, can be told from what is behind them (WCAG 2.2, AA)."""
        found = self.run(_CONTRAST)
        assert len(found) > 100 and found[0][0] >= 4.5, found[0]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in `folder`; skips the test if there is none."""
    path = shutil.which("chromium")
    if path is None:
        skip_or_fail("browser", "Chromium is not installed (Debian: apt-get install chromium)")
    to_browser, from_here = os.pipe()
    to_here, from_browser = os.pipe()
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
        f"--user-data-dir={folder}",
    ]
    with open(folder / "browser.log", "wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "browser", path, *options],
            pass_fds=(to_browser, from_browser),
            stdout=log,
            stderr=log,
        )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(from_here, to_here)
    finally:
        process.terminate()
        process.wait(30)
        os.close(from_here)
        os.close(to_here)
