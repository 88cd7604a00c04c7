"""`geolocate_archive` beside Daft, Ray Data and a pandas UDF of Spark, on the same photos, network and batch.

Each is a process of its own, start and imports included, in an environment of its own below `build/peers` (torch and
timm are shared). The peers read, decode, resize, score and write Parquet; the job also fingerprints, catalogues and
ranks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks import FOLDER
from benchmarks.geolocate import artefact, photos, scanned
from benchmarks.rank_regions import build
from benchmarks.timing import REPEATS, bar

IMAGES = 3_000
PINNED = {"daft": ["daft==0.7.26", "pyarrow==21.0.0"], "ray": ["ray[data]==2.60.0", "pyarrow==21.0.0"]}
BARS = {"daft": 1.0, "ray": 1.0, "udf": 4.0}
HERE = Path(__file__).parent / "peers_of_scans"


def environment(name: str) -> Path:
    """The Python of a peer's environment, which is made if it is absent."""
    folder = Path("build/peers") / name
    python = folder / "bin/python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        shared = next((folder / "lib").glob("python*")) / "site-packages/shared.pth"
        shared.write_text(sysconfig.get_paths()["purelib"])
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED[name]], check=True)
        (folder / "done").touch()
    return python.absolute()


def peer(python: Path, name: str, folder: Path, output: Path) -> float:
    """Seconds of a peer's process."""
    shutil.rmtree(output, ignore_errors=True)
    start = perf_counter()
    command = [python, HERE / f"{name}_scan.py", folder, output]
    environment = {**os.environ, "PYSPARK_PYTHON": str(python)}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return perf_counter() - start


def ours(root: Path, uri: str, folder: Path) -> float:
    """Seconds of the job's process."""
    shutil.rmtree(root / "scanned", ignore_errors=True)
    start = perf_counter()
    scanned(root, uri, folder, "peers")
    return perf_counter() - start


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    root = FOLDER.resolve() / "ranking"
    uri = artefact(root, build(root))
    folder, output = root / f"photos_{IMAGES}", root / "peers"
    photos(folder, IMAGES, (816, 612))
    works: dict[str, Callable[[], float]] = {"ours": partial(ours, root, uri, folder)}
    for name in PINNED:
        works[name] = partial(peer, environment(name), name, folder, output)
    works["udf"] = partial(peer, Path(sys.executable), "udf", folder, output)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            seconds[name].append(work())
            print(f"  {name}: {seconds[name][-1]:.0f} s", flush=True)
    took = {name: median(of) for name, of in seconds.items()}
    shutil.rmtree(output)
    shutil.rmtree(root / "scanned")
    print("  images/s: " + ", ".join(f"{name} {IMAGES / of:.1f}" for name, of in took.items()))
    met = [
        bar(f"rate of the job over {name}", took[name] / took["ours"], limit, at_least=True)
        for name, limit in BARS.items()
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
