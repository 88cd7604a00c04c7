"""Makes the helpers of tests/cluster, tests/images, tests/inference, tests/overhead and tests/sql importable here."""

import sys
from pathlib import Path

for folder in ("cluster", "images", "inference", "overhead", "sql"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
