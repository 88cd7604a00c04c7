"""Makes the helpers of tests/cluster and tests/images importable here."""

import sys
from pathlib import Path

for folder in ("cluster", "images"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
