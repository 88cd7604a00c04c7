"""Retire runs: `spark-submit jobs/retire_runs.py --config conf/retire_runs/newest.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.sql.config import RetireConfig
from geosieve.sql.retire import JOB, retire_runs

if __name__ == "__main__":
    sys.exit(main(JOB, RetireConfig, retire_runs))
