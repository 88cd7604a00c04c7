"""Train a predictor: `spark-submit jobs/train_predictor.py --config conf/train_predictor/s2_base.yaml`."""

import sys

from geosieve.training.train import start

if __name__ == "__main__":
    sys.exit(start())
