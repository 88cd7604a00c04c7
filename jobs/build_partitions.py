"""Make partitions from images: `spark-submit jobs/build_partitions.py --config conf/building/adaptive_s2.yaml`."""

import sys

from geosieve.partitions.building.job import BuildConfig, build_partitions
from geosieve.runtime.job import main

if __name__ == "__main__":
    sys.exit(main("build_partitions", BuildConfig, build_partitions))
