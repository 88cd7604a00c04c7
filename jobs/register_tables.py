"""Register committed runs: `spark-submit jobs/register_tables.py --config conf/register_tables/sqlite.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.sql.config import RegisterConfig
from geosieve.sql.register import JOB, register_tables

if __name__ == "__main__":
    sys.exit(main(JOB, RegisterConfig, register_tables))
