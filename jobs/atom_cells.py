"""S2 cells that cover an overlay's atoms: `spark-submit jobs/atom_cells.py --config conf/atom_cells/demo.yaml`."""

import sys

from geosieve.job.main import main
from geosieve.overlay.cells import JOB, CellsConfig, atom_cells

if __name__ == "__main__":
    sys.exit(main(JOB, CellsConfig, atom_cells))
