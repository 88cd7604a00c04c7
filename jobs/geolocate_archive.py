"""Geolocate photos: `spark-submit jobs/geolocate_archive.py --config conf/geolocate_archive/example.yaml`."""

import sys

from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.geolocate import JOB, geolocate_archive
from geosieve.job.main import main

if __name__ == "__main__":
    sys.exit(main(JOB, GeolocateConfig, geolocate_archive))
