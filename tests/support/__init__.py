"""What the tests share: importable as `support` from every test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def require_program(name: str) -> str:
    """Return the path of a program of the system, or skip the test; in CI its absence is a failure."""
    path = shutil.which(name)
    return path or lacking(f"{name} is not installed")


def lacking(reason: str) -> NoReturn:
    """Skip the test for what this machine lacks. In CI (`JETWAY_CI=1`) that is a failure."""
    if os.environ.get("JETWAY_CI") == "1":
        pytest.fail(f"{reason}, and CI must not pass this over")
    pytest.skip(reason)
