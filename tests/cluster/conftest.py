"""Makes the helpers of tests/images, tests/inference and tests/overhead importable here."""

import sys
from pathlib import Path

for folder in ("images", "inference", "overhead"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
