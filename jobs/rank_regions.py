"""Rank regions for predictions: `spark-submit jobs/rank_regions.py --config conf/rank_regions/example.yaml`."""

import sys

from geosieve.inference.rank_regions import JOB, rank_regions
from geosieve.inference.ranking_config import RankConfig
from geosieve.job.main import main

if __name__ == "__main__":
    sys.exit(main(JOB, RankConfig, rank_regions))
