"""Label images with maps and cells: `spark-submit jobs/label_attributes.py --config conf/label_attributes.yaml`."""

import sys

from geosieve.partitions.labelling import LabelConfig, label_attributes
from geosieve.runtime.job import main

if __name__ == "__main__":
    sys.exit(main("label_attributes", LabelConfig, label_attributes))
