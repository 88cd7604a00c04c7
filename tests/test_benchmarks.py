"""What benchmarks and demos take from the package is there: they run too seldom for a rename to be noticed else."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("demo/*.py"), *ROOT.glob("jobs/*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_name_of_the_package_that_a_script_uses_exists(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    modules, missing = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geosieve"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if not hasattr(module, alias.name) and hasattr(module, "__path__") and importlib.util.find_spec(name):
                    importlib.import_module(name)  # becomes an attribute of its package
                if hasattr(module, alias.name):
                    modules[alias.asname or alias.name] = getattr(module, alias.name)
                else:
                    missing.append(name)
    for node in ast.walk(tree):  # names of imported modules
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = modules.get(node.value.id)
            if isinstance(owner, type(ast)) and not hasattr(owner, node.attr):
                missing.append(f"{owner.__name__}.{node.attr}")
    assert not missing


def test_there_are_scripts() -> None:
    assert {"benchmarks", "demo", "jobs"} == {script.parent.name for script in SCRIPTS}
