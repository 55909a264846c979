"""What the tests share: importable as `support` from every test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def require_program(name: str) -> str:
    """Return the path of a program of the system, or skip the test.

    In CI (`JETWAY_CI=1`) its absence is a failure.
    """
    path = shutil.which(name)
    if path:
        return path
    reason = f"{name} is not installed"
    if os.environ.get("JETWAY_CI") == "1":
        pytest.fail(f"{reason}, and CI must not pass this over")
    pytest.skip(reason)
