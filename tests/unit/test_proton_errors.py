"""Whatever the driver raises comes out as one of the product's errors, and says rightly what was done."""

from __future__ import annotations

import socket
import struct

import pytest
from proton_driver import errors as driver

from jetway.adapters.database.proton_errors import Stage, server_code, translate
from jetway.core.errors import ExhaustedError, OutcomeUnknownError, PortError, RejectedError, UnavailableError

LABEL = "proton://db.example:8463/default"
LOST = [
    driver.NetworkError("Connection refused (db.example:8463)"),
    driver.SocketTimeoutError("timed out"),
    driver.PartiallyConsumedQueryError(),
    driver.UnexpectedPacketFromServerError("Unexpected packet"),
    driver.UnknownPacketFromServerError("Unknown packet 77"),
    EOFError("Unexpected EOF while reading bytes"),
    TimeoutError("timed out"),
    socket.gaierror(-2, "Name or service not known"),
    ConnectionResetError(104, "Connection reset by peer"),
    OSError(9, "Bad file descriptor"),
]
ENCODER = [
    driver.TypeMismatchError("Type mismatch in VALUES section"),
    AttributeError("'NoneType' object has no attribute 'encode'"),
    KeyError("missing"),
    ValueError("not a time"),
    struct.error("argument out of range"),
    TypeError("an integer is required"),
    IndexError("list index out of range"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
]


def _name(error: object) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", LOST, ids=_name)
def test_a_lost_server(error: Exception) -> None:
    assert type(translate(LABEL, error)) is UnavailableError, "nothing was sent"
    for stage in (Stage.SENDING, Stage.SENT):
        assert type(translate(LABEL, error, stage)) is OutcomeUnknownError
    assert LABEL in str(translate(LABEL, error))


@pytest.mark.parametrize("error", ENCODER, ids=_name)
def test_rows_that_the_driver_cannot_encode(error: Exception) -> None:
    assert type(translate(LABEL, error, Stage.SENDING)) is RejectedError
    assert type(translate(LABEL, error, Stage.SENT)) is OutcomeUnknownError, "it is the answer that is odd"
    assert type(translate(LABEL, error)) is PortError, "an answer that cannot be read"


@pytest.mark.parametrize(
    ("code", "before", "after", "said"),
    [
        (60, UnavailableError, UnavailableError, "run jetway migrate"),
        (16, UnavailableError, UnavailableError, "run jetway migrate"),
        (516, UnavailableError, UnavailableError, "lets us not in"),
        (81, UnavailableError, UnavailableError, "lets us not in"),
        (53, RejectedError, RejectedError, "refused what it was given"),
        (349, RejectedError, RejectedError, "refused what it was given"),
        (241, ExhaustedError, OutcomeUnknownError, "Memory limit"),
        (319, UnavailableError, OutcomeUnknownError, "code 319"),
    ],
)
def test_what_the_server_refuses(
    code: int, before: type[PortError], after: type[PortError], said: str
) -> None:
    error = driver.ServerException("DB::Exception: Memory limit exceeded\nStack trace: 0x1", code)
    assert type(translate(LABEL, error)) is before
    assert type(translate(LABEL, error, Stage.SENT)) is after
    text = str(translate(LABEL, error))
    assert said in text
    assert "Stack trace" not in text and "DB::Exception" not in text


@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), driver.SocketTimeoutError("(127.0.0.1:44031)")], ids=_name
)
def test_silence_is_told_in_seconds(error: Exception) -> None:
    assert str(translate(LABEL, error, seconds=4.98)).endswith("does not answer: no answer within 5 s")


def test_a_very_long_reason_is_cut() -> None:
    error = driver.ServerException("x" * 100_000, 1)
    assert len(str(translate(LABEL, error))) < 500


def test_the_servers_code_can_be_asked_of_a_translated_error() -> None:
    cause = driver.ServerException("no such stream", 60)
    translated = translate(LABEL, cause)
    assert server_code(translated) is None
    translated.__cause__ = cause
    assert server_code(translated) == 60
