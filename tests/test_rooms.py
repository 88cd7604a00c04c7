"""The picture of the rooms in docs/design.md is that of the code, and nothing imports upwards."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lib" / "geosieve"


def drawn() -> dict[str, set[str]]:
    """Which rooms each room imports, as the page says, from the top to the ground."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(\w+) +->(.*)$", text, re.MULTILINE)
    return {room: set(below.split()) for room, below in lines}


def imported() -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {path.name: set() for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        if room == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("geosieve."):
                rooms[room].add(node.module.split(".")[1])
    return {room: below - {room} for room, below in rooms.items()}


def test_the_picture_of_the_rooms_is_that_of_the_code() -> None:
    assert drawn() == imported()


def test_no_room_imports_one_above_it() -> None:
    order = list(drawn())
    assert all(order.index(room) < order.index(below) for room, found in imported().items() for below in found)


def test_no_two_modules_import_each_other() -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # not those inside functions, which are lazy
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("geosieve."):
                needs[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    clear: set[str] = set()
    waiting = set(needs)
    while ready := {name for name in waiting if not needs[name] & waiting}:
        clear |= ready
        waiting -= ready
    assert not waiting
