"""Compact a ranking: `spark-submit jobs/compact.py --config conf/compact/ranking.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.sql.compact import JOB, compact
from geosieve.sql.config import CompactConfig

if __name__ == "__main__":
    sys.exit(main(JOB, CompactConfig, compact))
