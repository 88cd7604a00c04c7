"""Split images without leakage: `spark-submit jobs/build_splits.py --config conf/build_splits/by_author.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.splits.build import build_splits
from geosieve.splits.config import SplitConfig

if __name__ == "__main__":
    sys.exit(main("build_splits", SplitConfig, build_splits))
