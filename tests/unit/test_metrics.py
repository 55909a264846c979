"""The daemon's metrics: what is known from the start, and that the page names all of them."""

from __future__ import annotations

import re
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from jetway.core import commands as c
from jetway.core.errors import Refused
from jetway.core.ids import ServiceType
from jetway.core.lifecycle import step
from jetway.core.liveness import Thresholds
from jetway.core.record import Approval, PackageStatus, ServiceStatus
from jetway.entry.http.connections import Connections
from jetway.entry.http.middleware import HttpMetrics
from jetway.entry.http.tls import Tls
from jetway.ports import ServerCertificate
from jetway.services.census import Census, CensusTerms
from jetway.services.index import Index
from jetway.services.metrics import HEARTBEATS_REFUSED, REDEMPTIONS, Metrics
from jetway.services.presence import PresenceTable
from support import REPOSITORY
from support.builders import LINEAGES, FakeClock, context, package, record
from support.house import House

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


def names_of(registry: CollectorRegistry) -> set[str]:
    """As they are written: a counter's with its ending."""
    ends = {"counter": "_total"}
    return {family.name + ends.get(family.type, "") for family in registry.collect()}


def told() -> set[str]:
    """The metrics in the table of the page."""
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+`) \| ", page, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_]+)", row)}


def test_the_page_names_every_metric_that_there_is_and_no_other() -> None:
    registry = CollectorRegistry()
    HttpMetrics(registry)
    Tls(cast("ServerCertificate", None), registry)
    Connections(registry)
    presence = PresenceTable(FakeClock(), default_interval=30, thresholds=Thresholds())
    registry.register(Census(Index(), presence, FakeClock(), CensusTerms(per_service=True)))
    there = names_of(House().metrics.registry) | names_of(registry)
    # A histogram of a moment has no family name of its own in what is scraped.
    there = {f"{name}_bucket" if name.endswith("ages_seconds") else name for name in there}
    assert there == told()


def test_no_metric_is_made_where_the_page_is_not_compared_with_it() -> None:
    made = re.compile(r'"((?:jetway|service_registry)_[a-z_]+)"')
    sources = (REPOSITORY / "daemon" / "jetway").rglob("*.py")
    texts = [text for file in sources if "prometheus_client" in (text := file.read_text(encoding="utf-8"))]
    found = {name for text in texts for name in made.findall(text)}
    assert len(found) > 30
    assert {name for name in found if not {name, f"{name}_total", f"{name}_bucket"} & told()} == set()
