"""Pair photos with chips: `spark-submit jobs/build_pairs.py --config conf/build_pairs/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.overhead.pairs.build import JOB, build_pairs
from geosieve.overhead.pairs.config import PairsConfig

if __name__ == "__main__":
    sys.exit(main(JOB, PairsConfig, build_pairs))
