"""The alert rules: Prometheus takes them, they name metrics that exist, and they fire when they should."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from jetway.core.heartbeat import EMPTY
from jetway.core.ids import ServiceKey
from jetway.core.record import ServiceStatus
from jetway.entry.http.middleware import HttpMetrics
from jetway.entry.http.tls import Tls
from jetway.ports import ServerCertificate
from jetway.services.metrics import Metrics
from jetway.services.set_aside import KINDS, SetAside
from support import REPOSITORY, require_program
from support.builders import record
from support.house import House

RULES = REPOSITORY / "config" / "prometheus" / "jetway-alerts.yml"
_METRIC = re.compile(r"\b(?:jetway|service_registry)_[a-z_]+\b")
_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gaugehistogram": ("_bucket",),
    "gauge": ("",),
}


def metrics_of_the_daemon() -> set[str]:
    house, registry = House(), CollectorRegistry()
    families = [*house.metrics.registry.collect(), *_http(registry).collect()]
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}


def _http(registry: CollectorRegistry) -> CollectorRegistry:
    HttpMetrics(registry)
    Tls(cast("ServerCertificate", None), registry)
    return registry


def expressions() -> str:
    """What the rules compute, without their words."""
    text = RULES.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"expr:(.*?)\n {8}for:", text, flags=re.DOTALL))


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_program("promtool"), *arguments], capture_output=True, text=True, check=False
    )


def test_every_metric_in_a_rule_exists() -> None:
    named = set(_METRIC.findall(expressions()))
    assert len(named) >= 6
    assert named <= metrics_of_the_daemon()


def test_every_alert_says_what_it_means() -> None:
    text = RULES.read_text(encoding="utf-8")
    alerts = text.count("- alert: ")
    assert alerts > 5
    for word in ("severity: ", "summary: ", "description: "):
        assert text.count(word) == alerts


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_in_a_rule_would_be_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(RULES.read_text(encoding="utf-8").replace("max by (instance", "maximum by (instance"))
    assert promtool("check", "rules", str(broken)).returncode != 0


def fires(tmp_path: Path, alert: str, series: dict[str, str], after: str, *, times: int) -> None:
    """With one sample a minute, so many of the alert fire at that time."""
    query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": after, "exp_samples": [{"labels": "{}", "value": times}]}
        ],
    }
    # JSON is YAML.
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


LAG = 'jetway_projection_lag_seconds{instance="gw", projection="%s"}'
HTTPS = 'jetway_http_certificate_expires_seconds{instance="gw"}'
SET_ASIDE = 'service_registry_rows_set_aside{instance="gw", kind="%s"}'


@pytest.mark.parametrize(
    ("alert", "series", "after", "times"),
    [
        ("JetwayProjectionLag", {LAG % "rows": "0+60x20", LAG % "events": "0x20"}, "12m", 1),
        ("JetwayProjectionLag", {LAG % "rows": "0 90 90 0x20"}, "12m", 0),
        ("JetwayProjectionLag", {LAG % "rows": " ".join(["NaN"] * 20)}, "12m", 0),
        ("JetwayProjectionStandsStill", {LAG % "rows": "4000+60x40"}, "20m", 1),
        (
            "JetwayProjectionBacklog",
            {'jetway_projection_lag_records{instance="gw", projection="rows"}': "20000+100x60"},
            "40m",
            1,
        ),
        (
            "JetwayProjectionBacklog",
            {'jetway_projection_lag_records{instance="gw", projection="rows"}': "90000-1000x60"},
            "40m",
            0,
        ),
        ("JetwayRowsSetAside", {SET_ASIDE % "agent": "2x20", SET_ASIDE % "poller": "0x20"}, "15m", 1),
        ("JetwayDocumentsSetAside", {'jetway_documents_set_aside{instance="gw"}': "1x20"}, "15m", 1),
        ("JetwayAuditGaps", {'jetway_audit_gaps{instance="gw"}': "3x20"}, "10m", 1),
        ("JetwayNatsAway", {'jetway_nats_connected{instance="gw"}': "1 1 0x20"}, "5m", 1),
        ("JetwayNotHearing", {'jetway_hearing_age_seconds{instance="gw"}': "0 0 60+60x20"}, "6m", 1),
        ("JetwayNotHearing", {'jetway_hearing_age_seconds{instance="gw"}': "0 10 0 12 0x20"}, "6m", 0),
        ("JetwayHeartbeatsDropped", {'jetway_heartbeats_dropped{instance="gw"}': "0+10x40"}, "30m", 1),
        (
            "JetwayRedemptionsRefused",
            {
                'jetway_redemptions_total{instance="gw", outcome="token_unknown"}': "0+5x40",
                'jetway_redemptions_total{instance="gw", outcome="delivered"}': "0+500x40",
            },
            "20m",
            1,
        ),
        (
            "JetwayStuckPending",
            {'service_registry_stuck_pending{instance="gw", type="agent"}': "2x60"},
            "40m",
            1,
        ),
        (
            "JetwayCredentialsExpire",
            {'service_registry_credentials_expiring{instance="gw", type="agent", what="nats"}': "1x90"},
            "80m",
            1,
        ),
        ("JetwayCertificateExpires", {HTTPS: "600000x90"}, "80m", 1),
        ("JetwayCertificateExpires", {HTTPS: "700000x90"}, "80m", 0),
        ("JetwayIndexOld", {'jetway_index_age_seconds{instance="gw"}': "0+60x40"}, "20m", 1),
        (
            "JetwayHeartbeatsRefused",
            {'jetway_heartbeats_refused_total{instance="gw", reason="revoked"}': "0+20x60"},
            "40m",
            1,
        ),
    ],
)
def test_an_alert_fires_when_it_should(
    tmp_path: Path, alert: str, series: dict[str, str], after: str, times: int
) -> None:
    fires(tmp_path, alert, series, after, times=times)


def test_what_is_set_aside_is_counted_from_the_start_on() -> None:
    """A series that appears with its first row would be a fault that no rule sees beginning."""
    metrics = Metrics()
    SetAside(metrics)
    for kind in KINDS:
        assert metrics.registry.get_sample_value("service_registry_rows_set_aside", {"kind": kind}) == 0


class Scraped:
    """A daemon of 300 agents that Prometheus scrapes once a minute: of a series it has what the daemon tells."""

    def __init__(self) -> None:
        self.house = House()
        self.house.presence.listening()
        self.minutes = 0
        self.silent: set[ServiceKey] = set()
        self.values: dict[str, list[str]] = {}
        plain = record(status=ServiceStatus.ACTIVE)
        for number in range(300):
            self.house.index.apply(replace(plain, service_id=f"a{number}"))

    def fall_silent(self, number: int) -> None:
        """So many agents beat no more."""
        self.silent = set(sorted(self.house.index.records, key=lambda key: key.service_id)[:number])

    def refuse(self, heartbeats: int, reason: str) -> None:
        """So many come that are refused for this."""
        for _ in range(heartbeats):
            self.house.observer.refuse(reason)

    def scrape(self, metric: str, minutes: int, every_minute: Callable[[], None] = lambda: None) -> None:
        """Let time pass in which all beat that are not silent."""
        for _ in range(minutes):
            self._beat_for_a_minute()
            every_minute()
            for series, value in self._samples(metric):
                self.values.setdefault(series, ["_"] * self.minutes).append(f"{value:g}")
            self.minutes += 1
            for known in self.values.values():
                known += ["_"] * (self.minutes - len(known))

    def _beat_for_a_minute(self) -> None:
        house = self.house
        for _ in range(2):
            house.clock.advance(30)
            for key in house.index.records.keys() - self.silent:
                house.presence.note(key, EMPTY, house.clock.now())
        asyncio.run(house.liveness.sweep())

    def _samples(self, metric: str) -> list[tuple[str, float]]:
        families = self.house.metrics.registry.collect()
        found = [one for family in families for one in family.samples if one.name == metric]
        return [(_spelt(metric, one.labels), one.value) for one in found]

    @property
    def series(self) -> dict[str, str]:
        return {name: " ".join(values) for name, values in self.values.items()}


def _spelt(metric: str, labels: dict[str, str]) -> str:
    told = {"instance": "gw", **labels}
    return metric + "{" + ", ".join(f'{name}="{value}"' for name, value in told.items()) + "}"


LIVENESS = "service_registry_liveness"


@pytest.mark.parametrize(
    ("before", "after", "times"),
    [(0, 30, 1), (0, 3, 0), (30, 30, 0), (20, 60, 1)],
)
def test_a_surge_is_what_goes_offline_at_one_time(
    tmp_path: Path, before: int, after: int, times: int
) -> None:
    scraped = Scraped()
    scraped.fall_silent(before)
    scraped.scrape(LIVENESS, 30)
    scraped.fall_silent(after)
    scraped.scrape(LIVENESS, 8)
    fires(tmp_path, "JetwayOfflineSurge", scraped.series, "37m", times=times)


def test_a_surge_shows_over_a_scrape_that_is_missing(tmp_path: Path) -> None:
    scraped = Scraped()
    scraped.scrape(LIVENESS, 20)
    scraped.fall_silent(100)
    scraped.scrape(LIVENESS, 5)
    for values in scraped.values.values():
        values[10:17] = ["_"] * 7
    fires(tmp_path, "JetwayOfflineSurge", scraped.series, "24m", times=1)


@pytest.mark.parametrize(
    ("reason", "times"), [("revoked", 1), ("malformed", 1), ("rejected", 0), ("approval_required", 0)]
)
def test_heartbeats_that_are_refused_are_told_from_the_first_burst_on(
    tmp_path: Path, reason: str, times: int
) -> None:
    scraped, metric = Scraped(), "jetway_heartbeats_refused_total"
    scraped.scrape(metric, 2)
    scraped.scrape(metric, 30, lambda: scraped.refuse(20, reason))
    fires(tmp_path, "JetwayHeartbeatsRefused", scraped.series, "30m", times=times)


def test_the_first_burst_of_refused_redemptions_is_told(tmp_path: Path) -> None:
    scraped, metric = Scraped(), "jetway_redemptions_total"
    scraped.scrape(metric, 2)
    for _ in range(100):
        scraped.house.metrics.count_redemption("token_unknown")
    scraped.scrape(metric, 10)
    fires(tmp_path, "JetwayRedemptionsRefused", scraped.series, "9m", times=1)
