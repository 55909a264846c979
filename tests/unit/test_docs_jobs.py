"""docs/jobs.md says of every job what the table says."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from jetway.services.job_table import audit_jobs
from support.house import House

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"
_ROW = re.compile(r"^\| `([a-z-]+)` \| (\d+) (s|min|h|d) \| (.+) \|$", re.MULTILINE)
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


async def test_the_page_lists_the_jobs_that_there_are() -> None:
    said = {
        name: (timedelta(**{_UNITS[unit]: int(number)}), text)
        for name, number, unit, text in _ROW.findall(PAGE.read_text())
    }
    # The house in memory makes no checkpoints; what is said of the job needs none.
    specs = [*House().jobs.specs.values(), *audit_jobs(None)]  # type: ignore[arg-type]
    assert said == {spec.name: (spec.every, spec.description) for spec in specs}
