"""Cataloguing archives: a zip of 100,000 members against zipfile, a tar of 5 GB on one and two cores, and memory.

The photos are synthetic scenes (benchmarks.decode_photos), a few of them under many names. Times are of the job
`ingest_images`, with its tables, without the start of its session. `zipfile` reads the same headers in one process. The
zip is catalogued twice in a session, and the second run counts: compiling Spark's code takes some 5 s at any size.

Run from the repository's root: python -m benchmarks.archives
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path
from time import perf_counter, sleep

import psutil
from PIL import Image

from benchmarks.decode_photos import scene
from benchmarks.timing import bar
from geosieve.runtime.session import DAEMON

MEMBERS, FEW = 100_000, 1_000
TAR_BYTES = 5_000_000_000
START = 1 << 16  # bytes of a member that zipfile reads for its header
ZIP_BAR, CORES_BAR, MEMORY_BAR = 0.7, 1.6, 1.1


def jpeg(width: int, height: int, quality: int, seed: int) -> bytes:
    """A scene with a position in its EXIF."""
    exif = Image.Exif()
    exif[34853] = {1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.2)}
    stream = io.BytesIO()
    scene(width, height, seed).save(stream, "JPEG", quality=quality, exif=exif.tobytes())
    return stream.getvalue()


def make_zip(path: Path, members: int) -> None:
    """Stored members of some 10 kB, in folders of 1,000."""
    contents = [jpeg(240, 180, 85, seed) for seed in range(10)]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(members):
            archive.writestr(f"{number // 1_000:03d}/{number:06d}.jpg", contents[number % 10])


def make_tar(path: Path, size: int) -> int:
    """Photos of 3 megapixels, `size` bytes of them. Returns their number."""
    contents = [jpeg(2_048, 1_536, 85, seed) for seed in range(5)]
    number = 0
    with tarfile.open(path, "w") as archive:
        while archive.offset < size:
            content = contents[number % 5]
            info = tarfile.TarInfo(f"{number:06d}.jpg")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
            number += 1
    return number


def read_by_zipfile(path: Path) -> int:
    """Headers of all members, as a plain loop reads them. Returns how many have a position."""
    from geosieve.images.headers import ImageHeader, read_header

    found = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                header = read_header(member.read(START))
            found += isinstance(header, ImageHeader) and header.lat is not None
    return found


class _Watch:
    """The largest memory of a Python worker below this process, in MiB."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ends.is_set():
            for process in psutil.Process().children(recursive=True):
                try:
                    if DAEMON in process.cmdline():
                        self.peak = max(self.peak, process.memory_info().rss / 2**20)
                except psutil.Error:
                    continue
            sleep(0.05)


def catalog(folder: str, fingerprint: str, runs: str) -> None:
    """Run the job on a folder, in this process with a session of its own.

    Prints the last run's report, and a line with its seconds and the largest memory of a worker in all runs.
    """
    from geosieve.images.ingest import IngestConfig, ingest_images
    from geosieve.job.main import main as run_job
    from geosieve.runtime.session import spark_session

    # A first job, on one photo, starts the workers.
    with tempfile.TemporaryDirectory() as work, spark_session("archives", local=False):
        (Path(work) / "one").mkdir()
        (Path(work) / "one" / "a.jpg").write_bytes(jpeg(90, 60, 85, 0))
        peak = 0.0
        for number, uri in enumerate([f"{work}/one", *[folder] * int(runs)]):
            source = {"name": Path(uri).name, "uri": uri, "format": "photos", "fingerprint": fingerprint == "true"}
            path = Path(work) / "config.yaml"
            path.write_text(json.dumps({"source": source, "output": f"{work}/tables"}))
            start = perf_counter()
            with _Watch() as watch:
                code = run_job(
                    "ingest_images", IngestConfig, ingest_images, ["--config", str(path), "--run-id", f"r{number}"]
                )
            seconds = perf_counter() - start
            assert code == 0
            peak = max(peak, watch.peak)
    print(json.dumps({"seconds": seconds, "worker_mib": peak}))


def measured(folder: Path, cores: int, fingerprint: bool, runs: int = 1) -> dict[str, float]:
    """`catalog` in a process of its own with so many cores. The last line before its own is the job's report."""
    environment = {
        **os.environ,
        "PYSPARK_SUBMIT_ARGS": f"--master local[{cores}] --driver-memory 2g pyspark-shell",
    }
    command = [sys.executable, "-m", "benchmarks.archives", str(folder), str(fingerprint).lower(), str(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    report, figures = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    return {**figures, "rows": report["rows_out"]}


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for name in ("many", "few", "tar"):
            (root / name).mkdir()
        make_zip(root / "many" / "a.zip", MEMBERS)
        make_zip(root / "few" / "a.zip", FEW)
        start = perf_counter()
        assert read_by_zipfile(root / "many" / "a.zip") == MEMBERS
        plain_s = perf_counter() - start
        many = measured(root / "many", 2, fingerprint=False, runs=2)
        assert many["rows"] == MEMBERS
        print(f"  zip of {MEMBERS:,}: zipfile {plain_s:.1f} s in one process, job {many['seconds']:.1f} s on 2 cores")
        met = [bar("rate of the job to zipfile's", plain_s / many["seconds"], ZIP_BAR, at_least=True)]
        few = measured(root / "few", 2, fingerprint=True)
        hashed = measured(root / "many", 2, fingerprint=True)
        print(
            f"  memory of a worker: {few['worker_mib']:.0f} MiB at {FEW:,}, {hashed['worker_mib']:.0f} at {MEMBERS:,}"
        )
        met.append(bar("growth of a worker's memory", hashed["worker_mib"] / few["worker_mib"], MEMORY_BAR))
        photos = make_tar(root / "tar" / "a.tar", TAR_BYTES)
        one, two = (measured(root / "tar", cores, fingerprint=True) for cores in (1, 2))
        assert one["rows"] == two["rows"] == photos
        print(f"  tar of {photos:,} photos, {TAR_BYTES / 1e9:g} GB: {one['seconds']:.1f} s, {two['seconds']:.1f} s")
        met.append(bar("two cores to one", one["seconds"] / two["seconds"], CORES_BAR, at_least=True))
    return 0 if all(met) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        catalog(*sys.argv[1:])
    else:
        sys.exit(main())
