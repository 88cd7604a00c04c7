"""Label images with partitions: `spark-submit jobs/label_attributes.py --config conf/label_attributes/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.labels.label import LabelConfig, label_attributes

if __name__ == "__main__":
    sys.exit(main("label_attributes", LabelConfig, label_attributes))
