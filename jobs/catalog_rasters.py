"""Describe the raster files of a map: `spark-submit jobs/catalog_rasters.py --config conf/rasters/landscan.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.rasters.catalog import CatalogConfig, catalog_rasters

if __name__ == "__main__":
    sys.exit(main("catalog_rasters", CatalogConfig, catalog_rasters))
