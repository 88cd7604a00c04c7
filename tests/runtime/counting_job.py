"""A job for tests of `spark-submit`: it counts, slowly enough for a progress bar, and warns."""

import sys
import time
import warnings

from geosieve.job.main import Context, main
from geosieve.runtime.config import Config


class Count(Config):
    """How far to count."""

    to: int


def count(context: Context[Count]) -> None:
    """Count, one second a number."""
    warnings.warn("a library's warning", stacklevel=1)
    numbers = context.spark.sparkContext.parallelize(range(context.config.to), context.config.to)
    context.report.rows_out = numbers.filter(lambda _: time.sleep(1) is None).count()


if __name__ == "__main__":
    sys.exit(main("count", Count, count))
