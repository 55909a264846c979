"""An import's other source: what another product keeps in Proton, read through the real driver."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jetway.cli.errors import CommandError
from jetway.cli.import_proton import read_streams
from jetway.cli.import_rows import Problem
from support.proton_standin import ProtonStandin, require_chdb
from support.proton_standin.driver import connect

_POLLERS = (
    "CREATE STREAM pollers (poller_id string, component_id string, status string, registration_source string,"
    " spiffe_identity string, metadata string) PRIMARY KEY (poller_id)"
    " SETTINGS mode='versioned_kv', version_column='_tp_time'"
)
_AGENTS = (
    "CREATE STREAM agents (agent_id string, poller_id string, status string, metadata string)"
    " PRIMARY KEY (agent_id) SETTINGS mode='versioned_kv', version_column='_tp_time'"
)
_CHECKERS = (
    "CREATE STREAM checkers (checker_id string, agent_id string, poller_id string, checker_kind string,"
    " status string, metadata string) PRIMARY KEY (checker_id)"
    " SETTINGS mode='versioned_kv', version_column='_tp_time'"
)


@pytest.fixture(scope="module")
def standin() -> Iterator[ProtonStandin]:
    require_chdb()
    with ProtonStandin() as running:
        yield running


@pytest.fixture
def url_file(standin: ProtonStandin, tmp_path: Path) -> Path:
    file = tmp_path / "proton.url"
    file.write_text(f"{standin.url}\n")
    return file


def test_services_come_parents_first_with_what_they_say(standin: ProtonStandin, url_file: Path) -> None:
    with pytest.raises(CommandError, match="there is no stream pollers"):
        read_streams(url_file, None)
    with connect(standin.url) as client:
        for statement in (_POLLERS, _AGENTS, _CHECKERS):
            client.execute(statement)
        client.execute(
            "INSERT INTO pollers (poller_id, component_id, status, registration_source, spiffe_identity, metadata)"
            " VALUES",
            [
                ("site-b", "", "revoked", "edge_onboarding", "", "{}"),
                ("site-a", "c", "active", "implicit", "spiffe://example.org/p", '{"owner": "netops"}'),
            ],
        )
        client.execute(
            "INSERT INTO agents (agent_id, poller_id, status, metadata) VALUES",
            [("core", "site-a", "active", "[")],
        )
        client.execute(
            "INSERT INTO checkers (checker_id, agent_id, poller_id, checker_kind, status, metadata) VALUES",
            [("ping", "core", "site-a", "icmp", "", "")],
        )
    rows = read_streams(url_file, None)
    assert [(row.place, row.problem) for row in rows] == [
        ("pollers site-a", None),
        ("pollers site-b", Problem("status", "it is revoked there")),
        ("agents core", Problem("metadata", "must be a JSON object")),
        ("checkers ping", None),
    ]
    assert rows[0].fields == {
        "service_type": "poller",
        "service_id": "site-a",
        "spiffe_id": "spiffe://example.org/p",
        "metadata": {"owner": "netops"},
    }
    assert rows[3].fields == {
        "service_type": "checker",
        "service_id": "ping",
        "parent_id": "core",
        "checker_kind": "icmp",
    }


def test_of_a_key_that_stands_there_for_several_days_the_newest_row_is_offered(
    standin: ProtonStandin, tmp_path: Path
) -> None:
    file = tmp_path / "days.url"
    file.write_text(standin.url_of("days"))
    with connect(standin.url) as client:
        client.execute("CREATE DATABASE days")
    with connect(standin.url_of("days")) as client:
        for statement in (_POLLERS, _AGENTS, _CHECKERS):
            client.execute(statement)
        into = "INSERT INTO pollers (poller_id, status, metadata, _tp_time) VALUES"
        for day, status, owner in ((1, "active", "first"), (3, "active", "last"), (2, "revoked", "second")):
            at = int(datetime(2026, 11, day, tzinfo=UTC).timestamp() * 1000)
            client.execute(into, [("site-a", status, f'{{"owner": "{owner}"}}', at)])
        client.execute(into, [("site-b", "active", "null", at), ("site-c", "purged", "", at)])
    rows = read_streams(file, None)
    assert [(row.place, row.problem, row.fields.get("metadata")) for row in rows] == [
        ("pollers site-a", None, {"owner": "last"}),
        ("pollers site-b", None, None),
        ("pollers site-c", Problem("status", "it is purged there"), None),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://a:hunter2@b", "must hold proton://"),
        ("proton://a:hunter2/x@b:1", "cannot be taken apart"),
        ("proton://a:hunter2@127.0.0.1:1/default", "127.0.0.1"),
    ],
)
def test_no_password_stands_in_an_error(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "proton.url"
    file.write_text(text)
    with pytest.raises(CommandError, match=says) as caught:
        read_streams(file, None)
    assert "hunter2" not in str(caught.value)
