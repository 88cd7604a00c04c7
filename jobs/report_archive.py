"""One page of a ranking's answers: `spark-submit jobs/report_archive.py --config conf/report_archive/example.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.reporting.archive import JOB, report_archive
from geosieve.reporting.archive_config import ReportConfig

if __name__ == "__main__":
    sys.exit(main(JOB, ReportConfig, report_archive))
