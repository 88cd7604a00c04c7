"""Evaluate predicted positions: `spark-submit jobs/evaluate.py --config conf/evaluate/predictions.yaml`."""

import sys

from geosieve.evaluation.config import EvaluateConfig
from geosieve.evaluation.job import evaluate
from geosieve.job.main import main

if __name__ == "__main__":
    sys.exit(main("evaluate", EvaluateConfig, evaluate))
