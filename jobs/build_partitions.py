"""Build partitions: `spark-submit jobs/build_partitions.py --config conf/build_partitions/adaptive_s2.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.partitions.building.job import BuildConfig, build_partitions

if __name__ == "__main__":
    sys.exit(main("build_partitions", BuildConfig, build_partitions))
