"""Ids, slugs, keys and subjects: what may be a name, and where it leads."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from jetway.core.heartbeat import MalformedError, parse_subject
from jetway.core.ids import (
    Lineage,
    ServiceId,
    ServiceKey,
    ServiceType,
    children_watch_key,
    document_key,
    is_id,
    slug,
    watch_key,
)
from support.builders import LINEAGES

GOOD = ["a", "0", "a1", "core-switch-room", "a--b", "x" * 63, "1-2"]
BAD = [
    "",
    "-",
    "-a",
    "a-",
    "A",
    "a_b",
    "a.b",
    "a b",
    "ä",
    "x" * 64,
    "a\n",
    "\na",
    "a\x00",
    "*",
    ">",
    "a/b",
    "..",
    "٣",
]
_SERVICE_ID = TypeAdapter(ServiceId)


@pytest.mark.parametrize("text", GOOD)
def test_a_dns_label_is_an_id(text: str) -> None:
    assert is_id(text)
    assert _SERVICE_ID.validate_python(text) == text


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_not_an_id_at_any_door(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ValidationError):
        _SERVICE_ID.validate_python(text)
    with pytest.raises(ValueError):
        ServiceKey.parse(f"agent.{text}")


@pytest.mark.parametrize(
    ("label", "made"),
    [
        ("Core switch room", "core-switch-room"),
        ("  Zürich – Süd  ", "zurich-sud"),
        ("\uff21\uff11", "a1"),
        ("--x--", "x"),
        ("日本", ""),
        ("", ""),
        ("!!!", ""),
        ("x" * 80, "x" * 63),
        ("y" * 62 + " z", "y" * 62),
    ],
)
def test_a_slug_is_an_id_or_empty(label: str, made: str) -> None:
    assert slug(label) == made
    assert made == "" or is_id(made)


@pytest.mark.parametrize("text", ["agent.a1", "poller.p-1", "checker.0"])
def test_a_key_reads_back(text: str) -> None:
    assert str(ServiceKey.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", ".", "agent", "agent.", ".a", "robot.a", "Agent.a", "agent.a.b", "agent a"]
)
def test_anything_else_is_no_key(text: str) -> None:
    with pytest.raises(ValueError):
        ServiceKey.parse(text)


def test_the_keys_and_subjects_are_the_contracts() -> None:
    poller, agent, checker = (LINEAGES[kind] for kind in ServiceType)
    assert [document_key(x) for x in (poller, agent, checker)] == [
        "config/pollers/p1.json",
        "config/pollers/p1/agents/a1.json",
        "config/agents/a1/checkers/c1.json",
    ]
    assert [watch_key(x) for x in (poller, agent, checker)] == [
        "config.pollers.p1",
        "config.pollers.p1.agents.a1",
        "config.agents.a1.checkers.c1",
    ]
    assert [children_watch_key(x) for x in (poller, agent, checker)] == [
        "config.pollers.p1.agents.*",
        "config.agents.a1.checkers.*",
        "",
    ]
    assert [x.subject("edge.heartbeat") for x in (poller, agent, checker)] == [
        "edge.heartbeat.poller.p1",
        "edge.heartbeat.agent.p1.a1",
        "edge.heartbeat.checker.p1.a1.c1",
    ]
    assert [x.inbox_prefix for x in (poller, agent, checker)] == [
        "_INBOX_poller_p1.",
        "_INBOX_agent_p1_a1.",
        "_INBOX_checker_p1_a1_c1.",
    ]


def test_a_lineage_knows_its_parent() -> None:
    poller, agent, checker = (LINEAGES[kind] for kind in ServiceType)
    assert (poller.parent, poller.parent_id) == (None, "")
    assert agent.parent == poller.key
    assert checker.parent == agent.key
    assert [kind.parent_type for kind in ServiceType] == [None, ServiceType.POLLER, ServiceType.AGENT]
    assert [kind.child_type for kind in ServiceType] == [ServiceType.AGENT, ServiceType.CHECKER, None]


@pytest.mark.parametrize("lineage", LINEAGES.values(), ids=lambda x: x.service_type.value)
@pytest.mark.parametrize("prefix", ["edge.heartbeat", "x", "a.b.c"])
def test_a_subject_reads_back(lineage: Lineage, prefix: str) -> None:
    assert parse_subject(lineage.subject(prefix), prefix) == lineage


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "edge.heartbeat",
        "edge.heartbeat.",
        "edge.heartbeat.poller",
        "edge.heartbeat.poller.",
        "edge.heartbeat.poller.p1.a1",
        "edge.heartbeat.agent.a1",
        "edge.heartbeat.agent.p1.a1.c1",
        "edge.heartbeat.checker.p1.a1.c1.x",
        "edge.heartbeat.robot.p1",
        "edge.heartbeat.poller.P1",
        "edge.heartbeat.poller.*",
        "edge.heartbeat.poller.p1 ",
        "edge.heartbeats.poller.p1",
        "edge.heartbeatpoller.p1",
        "other.heartbeat.poller.p1",
        "edge.heartbeat..poller.p1",
    ],
)
def test_any_other_subject_is_malformed(subject: str) -> None:
    with pytest.raises(MalformedError):
        parse_subject(subject, "edge.heartbeat")
