"""Catalogue a map's files: `spark-submit jobs/catalog_rasters.py --config conf/catalog_rasters/landscan.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.rasters.catalog import CatalogConfig, catalog_rasters

if __name__ == "__main__":
    sys.exit(main("catalog_rasters", CatalogConfig, catalog_rasters))
