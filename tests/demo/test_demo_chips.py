"""`make demo-chips`, smaller: strips in two zones, chips, splits, pairs and the page fit together."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from demo import city
from PIL import Image
from pyproj import Transformer
from rasterio.transform import Affine
from tuned_spark import TUNED

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (ROOT / "build/demo/.packages").exists(), reason="the demo's packages are not there: make build/demo/.packages"
)


SMALLER = """
import sys
from demo import chips, city
city.HEIGHT_M, chips.PHOTOS = 1500.0, 160
sys.exit(chips.run())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The demo's folder after it has run there, in a process of its own: paths of the demo are relative."""
    root = tmp_path_factory.mktemp("demo")
    (root / "build").mkdir()
    (root / "build/demo").symlink_to(ROOT / "build/demo")
    (root / "conf").symlink_to(ROOT / "conf")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    environment["PYSPARK_SUBMIT_ARGS"] = shlex.join(["--driver-memory", "1g", *TUNED, "pyspark-shell"])
    command = [sys.executable, "-c", SMALLER]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(city, "HEIGHT_M", 1_500.0)
        return SimpleNamespace(root=root, drawn=city.draw_city())


def rows(root: Path, table: str) -> pd.DataFrame:
    (leaf,) = root.glob(f"tables/{table}/*/run_id=*")
    return pq.read_table(leaf, partitioning=None).to_pandas()


def test_every_photo_is_a_pair_or_a_reject(made: SimpleNamespace) -> None:
    pairs = rows(made.root, "pairs")
    (leaf,) = made.root.glob("tables/rejects/job=build_pairs/part=demo/run_id=*")
    rejects = pq.read_table(leaf, partitioning=None).to_pandas()
    listed = pd.read_csv(made.root / "build/chips/photos.csv")
    assert sorted([*pairs["image_id"], *rejects["id"]]) == sorted(listed["id"])
    assert len(pairs) > 20
    assert {"licence_not_allowed", "no_chip"} <= set(rejects["error_class"])
    assert set(pairs["licence"]) <= {"cc-by-2.0", "cc-by-sa-2.0", "cc0-1.0"}
    assert pairs.groupby("author")["split"].nunique().max() == 1
    assert (made.root / "build/pairs.html").read_text("utf-8").count("SYNTHETIC: a generator drew them") == 1


def test_a_chip_shows_the_city_around_its_photo_in_both_zones(made: SimpleNamespace) -> None:
    pairs = rows(made.root, "pairs")
    assert set(pairs["chip_epsg"]) == {32631, 32632}
    for zone, group in pairs.groupby("chip_epsg"):
        to_plane = Transformer.from_crs(int(zone), city._PLANE, always_xy=True)
        for row in group.head(4).itertuples():
            chip = np.asarray(Image.open(io.BytesIO(row.chip)), float)
            assert chip.shape == (750, 750, 3)
            step = Affine(*(row.chip_transform[name] for name in "abcdef"))
            x, y = Transformer.from_crs(4326, int(zone), always_xy=True).transform(row.lon, row.lat)
            assert np.abs(np.subtract(step * (375, 375), (x, y))).max() < 0.15 + 1e-6  # half a pixel
            pixel = np.arange(2, 750, 5) + 0.5
            x, y = to_plane.transform(*(step * np.meshgrid(pixel, pixel)))
            at = (city._REACH_M[1] - np.asarray(y)) / city.PIXEL_M, (np.asarray(x) + city._REACH_M[0]) / city.PIXEL_M
            there = made.drawn[at[0].astype(int), at[1].astype(int)].astype(float)
            assert np.corrcoef(chip[2::5, 2::5, 0].ravel(), there[..., 0].ravel())[0, 1] > 0.8
