"""Measurements against named peers and limits: `python -m benchmarks`."""

from pathlib import Path

FOLDER = Path("build/benchmarks")
"""Where they keep what they make."""
FOLDER.mkdir(parents=True, exist_ok=True)
