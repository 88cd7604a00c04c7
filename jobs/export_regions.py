"""Answers as GIS files: `spark-submit jobs/export_regions.py --config conf/export_regions/example.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.reporting.export import JOB, export_regions
from geosieve.reporting.export_config import ExportConfig

if __name__ == "__main__":
    sys.exit(main(JOB, ExportConfig, export_regions))
