"""Cut chips around positions: `spark-submit jobs/cut_chips.py --config conf/cut_chips/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.chips.job import cut_chips

if __name__ == "__main__":
    sys.exit(main("cut_chips", ChipsConfig, cut_chips))
