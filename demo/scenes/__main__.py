"""Draw synthetic scenes of known places, four of each: `python -m demo.scenes`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demo.scenes import maps
from demo.scenes.draw import draw
from demo.scenes.sheet import sheet

SHEET = Path("build/scenes.png")
PLACES = {
    "Sahara": (24.5, 10.2), "Empty Quarter": (20.5, 50.5), "Amazon": (-3.9, -65.1), "Borneo": (1.5, 114.5),
    "Yakutsk": (62.03, 129.73), "Finland": (63.5, 26.2), "Tokyo": (35.69, 139.69), "Manhattan": (40.76, -73.98),
    "Mumbai": (19.07, 72.88), "Sao Paulo": (-23.55, -46.63), "Miami Beach": (25.79, -80.13),
    "Bondi": (-33.89, 151.27), "Iowa": (42.1, -93.9), "Beauce": (48.2, 1.7), "Punjab": (30.9, 75.5),
    "London": (51.51, -0.13), "Paris": (48.86, 2.35), "Greenland": (74.0, -40.0), "Antarctica": (-80.0, 60.0),
    "Serengeti": (-2.3, 34.8), "Patagonia": (-47.0, -70.0), "Honolulu": (21.28, -157.83), "Kerala": (9.5, 76.5),
    "Svalbard": (78.2, 15.6),
}  # fmt: skip


def main(path: Path = SHEET) -> None:
    """Write a contact sheet to `path`."""
    lat, lon = np.repeat(np.array(list(PLACES.values())), 4, axis=0).T
    scenes = draw(maps.read(lat, lon), 0, np.arange(lat.size))
    sheet(scenes, [name for name in PLACES for _ in range(4)], path, columns=12, zoom=1)
    print(f"synthetic scenes  {path}")


if __name__ == "__main__":
    main()
