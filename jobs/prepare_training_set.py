"""Make training shards: `spark-submit jobs/prepare_training_set.py --config conf/prepare_training_set/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.training.config import TrainingSetConfig
from geosieve.training.prepare import prepare_training_set

if __name__ == "__main__":
    sys.exit(main("prepare_training_set", TrainingSetConfig, prepare_training_set))
