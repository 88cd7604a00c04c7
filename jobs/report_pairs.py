"""One page about a set of pairs: `spark-submit jobs/report_pairs.py --config conf/report_pairs/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.reporting.pairs import JOB, report_pairs
from geosieve.reporting.pairs_config import ReportPairsConfig

if __name__ == "__main__":
    sys.exit(main(JOB, ReportPairsConfig, report_pairs))
