"""Skips that are failures where the environment says that a thing must be there."""

import os
from typing import NoReturn

import pytest


def skip_or_fail(name: str, reason: str) -> NoReturn:
    """Skip a test because `name` is missing; fail if GEOSIEVE_REQUIRE, a list with commas, has it."""
    if name in os.environ.get("GEOSIEVE_REQUIRE", "").split(","):
        pytest.fail(f"{name} is required here: {reason}")
    pytest.skip(reason)
