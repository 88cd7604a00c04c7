"""Make 8-bit strips in UTM: `spark-submit jobs/prepare_strips.py --config conf/prepare_strips/worldview.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overhead.strips.prepare import prepare_strips

if __name__ == "__main__":
    sys.exit(main("prepare_strips", StripsConfig, prepare_strips))
