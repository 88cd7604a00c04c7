"""Names that benchmarks, demos and jobs take from the package exist: some scripts run too seldom to notice a rename."""

from __future__ import annotations

import ast
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "demo", "jobs") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_name_of_the_package_that_a_script_uses_exists(script: Path) -> None:
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))  # functions import, too
    taken = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("geosieve"):
            for alias in node.names:
                taken[alias.asname or alias.name] = resolve_name(f"{node.module}.{alias.name}")
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = taken.get(node.value.id)
            assert not isinstance(owner, ModuleType) or hasattr(owner, node.attr), f"{owner} has no {node.attr}"


def test_there_are_scripts() -> None:
    assert {"benchmarks", "peers_of_scans", "demo", "scenes", "jobs"} == {script.parent.name for script in SCRIPTS}
