"""Intersect partitions into atoms: `spark-submit jobs/build_overlay.py --config conf/build_overlay/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.overlay.build import OverlayConfig, build_overlay

if __name__ == "__main__":
    sys.exit(main("build_overlay", OverlayConfig, build_overlay))
