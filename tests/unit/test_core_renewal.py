"""Renewals on the wire: what is signed, what is read, and that nothing breaks the reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetway.core.heartbeat import MalformedError
from jetway.core.ids import Lineage, ServiceType
from jetway.core.renewal import (
    MAX_BYTES,
    RenewalAnswer,
    RenewalRefusal,
    encode_answer,
    make_request,
    parse_answer,
    parse_request,
    renewal_subject,
)
from support.builders import LINEAGES, NOW

AGENT = LINEAGES[ServiceType.AGENT]
SUBJECT = "jetway.renew.agent.p1.a1"
SIGNATURE = bytes(range(64))


def made(**changes: Any) -> bytes:
    data = make_request(
        AGENT, nats_public_key="U-mine", now=NOW, sign=lambda _: SIGNATURE, csr_pem="csr mine"
    )
    return json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize("lineage", LINEAGES.values())
@pytest.mark.parametrize("over_nats", [True, False])
def test_what_is_made_is_read(lineage: Lineage, over_nats: bool) -> None:
    said: list[bytes] = []

    def sign(message: bytes) -> bytes:
        said.append(message)
        return SIGNATURE

    data = make_request(lineage, nats_public_key="U-mine", now=NOW, sign=sign, csr_pem="csr mine")
    read = parse_request(data, renewal_subject(lineage) if over_nats else "")
    assert (read.lineage, read.timestamp, read.nats_public_key) == (lineage, NOW, "U-mine")
    assert (read.csr_pem, read.signature, [read.signed]) == ("csr mine", SIGNATURE, said)


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": "2026-03-04T05:06:07.891Z"},
        {"csr_pem": "csr another"},
        {"csr_pem": ""},
        {"subject": "jetway.renew.agent.p1.a2"},
    ],
)
def test_whatever_is_exchanged_is_not_what_was_signed(change: dict[str, str]) -> None:
    assert parse_request(made(**change)).signed != parse_request(made()).signed


def test_the_subject_it_came_on_counts_and_must_be_the_one_that_is_meant() -> None:
    assert parse_request(made(subject=""), SUBJECT).lineage == AGENT
    with pytest.raises(MalformedError, match="subject"):
        parse_request(made(), "jetway.renew.agent.p1.a2")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        made(subject=""),
        made(subject="edge.heartbeat.agent.p1.a1"),
        made(subject="jetway.renew.agent.p1"),
        made(subject="jetway.renew.agent.p1.A1"),
        made(timestamp="yesterday"),
        made(timestamp="2026-03-04T05:06:07"),
        made(timestamp=1),
        made(signature="not base64!"),
        made(signature="é"),
        made(nats_public_key="U" * 129),
        made(csr_pem="x" * 16385),
        made().ljust(MAX_BYTES + 1),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_request_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_request(data)


@given(st.binary(max_size=400), st.text(max_size=60))
def test_nothing_breaks_the_reader(data: bytes, subject: str) -> None:
    for read in (lambda: parse_request(data, subject), lambda: parse_answer(data)):
        try:
            read()
        except MalformedError as error:
            assert str(error)


@given(
    st.dictionaries(
        st.sampled_from(["subject", "timestamp", "nats_public_key", "csr_pem", "signature"]),
        st.one_of(st.text(max_size=40), st.integers(), st.none(), st.lists(st.integers(), max_size=2)),
    )
)
def test_no_field_breaks_the_reader(changes: dict[str, Any]) -> None:
    try:
        read = parse_request(made(**changes))
    except MalformedError:
        return
    assert read.lineage.service_id


@pytest.mark.parametrize(
    "answer",
    [
        RenewalAnswer(creds="c", certificate_pem="p", ca_pem="r", expires_at=NOW),
        RenewalAnswer(),
        RenewalRefusal(error="revoked", detail="this identity was revoked"),
    ],
)
def test_answers_come_back_as_they_were(answer: RenewalAnswer | RenewalRefusal) -> None:
    assert parse_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"error": 1}', b'{"expires_at": "x"}'])
def test_what_is_no_answer_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_answer(data)


@pytest.mark.parametrize("subject", ["", "0", "jetway.renew", "edge.heartbeat.agent.p1.a1"])
def test_a_body_that_names_no_service_is_told_which_field_is_wrong(subject: str) -> None:
    with pytest.raises(MalformedError, match=r"^subject: "):
        parse_request(made(subject=subject))
