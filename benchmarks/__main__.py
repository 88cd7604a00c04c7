"""`python -m benchmarks` lists the benchmarks; with names or `all` it runs them, each in its own process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

NAMES = (
    "s2_ids",
    "sampling",
    "checksums",
    "peers",
    "ordering",
    "sedona_raster",
    "label_job",
    "catalog_tiles",
    "many_tiles",
    "build_partitions",
    "evaluate_job",
    "overlay_rank",
    "rank_regions",
    "geolocate",
    "inference_peers",
    "sql_pruning",
    "reached_memory",
    "list_photos",
    "decode_photos",
    "archives",
    "payloads",
    "prepare_training_set",
    "training",
    "training_gpu",
    "driver_memory",
    "near_duplicates",
    "strips",
    "chips",
    "overhead_memory",
    "harvest",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, or list all if there are no names.

    Return exit code 1 if a benchmark misses a bar, fails or is unknown.
    """
    if not names:
        for name in NAMES:
            source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
            summary = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
            print(f"{name:20} {summary}")
        return 0
    names = list(NAMES) if names == ["all"] else names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 1
    missed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode:
            missed.append(name)
    print(f"not met or failed: {', '.join(missed)}" if missed else "all bars met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
