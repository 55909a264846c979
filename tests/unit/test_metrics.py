"""The daemon's metrics: what is known from the start, and that the page names all of them."""

from __future__ import annotations

import re

import pytest

from jetway.core import commands as c
from jetway.core.errors import Refused
from jetway.core.ids import ServiceType
from jetway.core.lifecycle import step
from jetway.core.record import Approval, PackageStatus, ServiceStatus
from jetway.services.metrics import HEARTBEATS_REFUSED, REDEMPTIONS, Metrics
from support import REPOSITORY
from support.builders import LINEAGES, context, package, record

_REFUSE = re.compile(r'\.refuse\(\s*"([a-z_]+)"')


def test_what_alert_rules_count_begins_at_nought() -> None:
    registry = Metrics().registry
    for reason in HEARTBEATS_REFUSED:
        assert registry.get_sample_value("jetway_heartbeats_refused_total", {"reason": reason}) == 0
    for outcome in REDEMPTIONS:
        assert registry.get_sample_value("jetway_redemptions_total", {"outcome": outcome}) == 0


def test_every_reason_that_a_door_gives_is_known_from_the_start() -> None:
    sources = (REPOSITORY / "daemon" / "jetway").rglob("*.py")
    given = {reason for file in sources for reason in _REFUSE.findall(file.read_text(encoding="utf-8"))}
    assert len(given) >= 5
    assert given <= set(HEARTBEATS_REFUSED)


@pytest.mark.parametrize("status", list(ServiceStatus))
@pytest.mark.parametrize("approval", list(Approval))
def test_every_reason_that_a_record_gives_is_known_from_the_start(
    status: ServiceStatus, approval: Approval
) -> None:
    kind = ServiceType.AGENT
    for package_status in PackageStatus:
        heard = record(kind, status=status, approval=approval, package=package(package_status))
        outcome = step(heard, c.Heartbeat(lineage=LINEAGES[kind]), context())
        if isinstance(outcome, Refused):
            assert outcome.code in HEARTBEATS_REFUSED
