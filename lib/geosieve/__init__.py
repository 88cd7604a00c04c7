"""geosieve finds where photographs were taken: ranked regions with areas."""

__version__ = "0.1.0"
