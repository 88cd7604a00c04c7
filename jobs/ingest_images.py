"""Turn a source (list of coordinates, folder of photos) into the table `images`; see conf/ingest_images/."""

import sys

from geosieve.images.ingest import ingest_images
from geosieve.images.sources import IngestConfig
from geosieve.job.main import main

if __name__ == "__main__":
    sys.exit(main("ingest_images", IngestConfig, ingest_images))
