"""Fit an ensemble of predictors: `spark-submit jobs/fit_ensemble.py --config conf/fit_ensemble/density.yaml`."""

import sys

from geosieve.inference.config import FitEnsembleConfig
from geosieve.inference.fit_ensemble import fit_ensemble
from geosieve.job.main import main

if __name__ == "__main__":
    sys.exit(main("fit_ensemble", FitEnsembleConfig, fit_ensemble))
