"""Whatever comes in from outside is taken or refused in one declared way; nothing else is ever raised."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jetway.core import documents as doc
from jetway.core.errors import Code, RefusedError
from jetway.core.heartbeat import Beat, MalformedError, Payload, parse_batch, parse_payload, parse_subject
from jetway.core.ids import Lineage, ServiceKey, ServiceType, is_id, slug
from jetway.core.record import decode_record, encode_record
from jetway.core.templates import fill, placeholders
from jetway.core.times import parse_rfc3339, rfc3339
from jetway.core.tokens import Claims, decode64, encode64, join_token, signing_input, split_token
from support.builders import record

IDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FINITE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), FINITE, max_size=4)
CLAIM_NAMES = (
    "gateway",
    "package_id",
    "generation",
    "service_type",
    "service_id",
    "expires_at",
    "secret",
    "ca_pin",
)
PAYLOAD_NAMES = tuple(Payload.model_fields)
ENTRY_NAMES = (*PAYLOAD_NAMES, "service_type", "poller_id", "agent_id", "checker_id")


def objects_of(names: tuple[str, ...]) -> st.SearchStrategy[object]:
    return st.dictionaries(
        st.sampled_from(names), JSON | IDS | st.sampled_from(["poller", "agent", "checker"])
    )


@st.composite
def lineages(draw: st.DrawFn) -> Lineage:
    kind = draw(st.sampled_from(ServiceType))
    depth = {ServiceType.POLLER: 1, ServiceType.AGENT: 2, ServiceType.CHECKER: 3}[kind]
    return Lineage(kind, *[draw(IDS) for _ in range(depth)])


def judge_token(token: str) -> None:
    try:
        parts = split_token(token)
    except RefusedError as error:
        assert error.refused.code is Code.TOKEN_MALFORMED
    else:
        assert isinstance(parts.claims.expired(datetime(2026, 1, 1, tzinfo=UTC)), bool)
        assert is_id(parts.claims.service_id)
        assert join_token(parts.signed, parts.signature) == token


@given(st.text() | st.text(st.characters(codec=None)))
@example("jw1.\ud800.\ud800")
def test_any_text_is_a_token_or_malformed(token: str) -> None:
    judge_token(token)


@given(JSON | objects_of(CLAIM_NAMES), st.binary(min_size=1, max_size=80))
def test_any_claims_make_a_token_or_are_malformed(claims: object, signature: bytes) -> None:
    judge_token(f"jw1.{encode64(json.dumps(claims).encode())}.{encode64(signature)}")


@given(
    st.builds(
        Claims,
        gateway=st.text(max_size=40),
        package_id=st.uuids().map(str),
        generation=st.integers(1, 99),
        service_type=st.sampled_from(ServiceType),
        service_id=IDS,
        expires_at=st.integers(0, 4_000_000_000),
        secret=st.text(max_size=40),
        ca_pin=st.text(max_size=40),
    ),
    st.binary(min_size=1, max_size=80),
)
def test_every_token_comes_apart_as_it_was_put_together(claims: Claims, signature: bytes) -> None:
    parts = split_token(join_token(signing_input(claims), signature))
    assert asdict(parts.claims) == asdict(claims)
    assert parts.signature == signature


@given(st.text())
def test_any_text_is_base64url_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert encode64(decode64(text)) == text


@given(
    st.text() | st.builds("edge.heartbeat.{}".format, st.text()), st.sampled_from(["edge.heartbeat", "x", ""])
)
def test_any_subject_is_a_senders_or_malformed(subject: str, prefix: str) -> None:
    with suppress(MalformedError):
        assert parse_subject(subject, prefix).subject(prefix) == subject


@given(lineages(), st.sampled_from(["edge.heartbeat", "x"]))
def test_every_subject_reads_back(lineage: Lineage, prefix: str) -> None:
    assert parse_subject(lineage.subject(prefix), prefix) == lineage


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_payload_or_malformed(data: bytes) -> None:
    with suppress(MalformedError):
        assert isinstance(parse_payload(data), Payload)


@given(objects_of(PAYLOAD_NAMES))
def test_any_fields_are_a_payload_or_malformed(fields: object) -> None:
    with suppress(MalformedError):
        payload = parse_payload(json.dumps(fields).encode())
        assert payload.interval_seconds is None or 1 <= payload.interval_seconds <= 86_400


@given(st.lists(JSON | objects_of(ENTRY_NAMES), max_size=6), st.none() | IDS)
def test_any_batch_gives_one_verdict_for_each_entry(entries: list[object], poller_id: str | None) -> None:
    data = json.dumps({"heartbeats": entries}).encode()
    try:
        verdicts = parse_batch(data, poller_id)
    except MalformedError:
        return
    assert len(verdicts) == len(entries)
    for verdict in verdicts:
        assert isinstance(verdict, Beat | MalformedError)
        if isinstance(verdict, Beat):
            assert all(map(is_id, verdict.lineage.ids))
            assert poller_id is None or verdict.lineage.poller_id == poller_id


@given(st.binary() | JSON.map(lambda value: json.dumps({"heartbeats": value}).encode()), st.none() | IDS)
def test_any_bytes_are_a_batch_or_malformed(data: bytes, poller_id: str | None) -> None:
    with suppress(MalformedError):
        assert isinstance(parse_batch(data, poller_id), list)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_stored_bytes_are_a_document_that_can_be_written_again_or_none(data: bytes) -> None:
    stored = doc.decode_document(data)
    if stored is None:
        return
    assert doc.version_of(stored) >= (0, 0) or "epoch" in stored
    assert isinstance(doc.edited_by_hand(stored), bool)
    rendered = doc.render(record(), [], default_interval=30, stored=stored)
    assert doc.decode_document(doc.encode_document(rendered)) == rendered


@given(OBJECTS, OBJECTS, st.dictionaries(st.text(), st.text(), max_size=3), st.text())
def test_every_record_survives_its_encoding(metadata: dict, config: dict, labels: dict, label: str) -> None:
    made = record(metadata=metadata, checker_config=config, labels=labels, label=label)
    assert decode_record(encode_record(made)) == made


@given(st.text())
def test_a_slug_is_an_id_or_empty(label: str) -> None:
    made = slug(label)
    assert made == "" or is_id(made)
    assert slug(made) == made


@given(st.text())
def test_any_text_is_a_key_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert str(ServiceKey.parse(text)) == text


@given(st.text() | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        moment = parse_rfc3339(text)
        assert parse_rfc3339(rfc3339(moment)) == moment


@given(FINITE, st.text(max_size=20))
def test_a_filled_template_keeps_its_shape_and_takes_values_as_they_are(template: object, value: str) -> None:
    wrapped = {"template": template, "here": "{{NAME}}"}
    values = dict.fromkeys(placeholders(wrapped), value)
    filled = fill(wrapped, values, "kind")
    assert isinstance(filled, dict)
    assert filled["here"] == value


@pytest.mark.parametrize("size", [200_000])
def test_a_huge_token_is_refused_before_it_is_decoded(size: int) -> None:
    judge_token("jw1." + "A" * size + ".AA")
