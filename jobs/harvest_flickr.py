"""Download photos of Flickr with open licences, in boxes; see conf/harvest_flickr/."""

import sys

from geosieve.job.main import main
from geosieve.overhead.flickr import JOB, FlickrConfig, harvest_flickr

if __name__ == "__main__":
    sys.exit(main(JOB, FlickrConfig, harvest_flickr))
