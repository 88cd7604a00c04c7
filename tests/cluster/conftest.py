"""Makes the helpers of tests/images and tests/inference importable here."""

import sys
from pathlib import Path

for folder in ("images", "inference"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
