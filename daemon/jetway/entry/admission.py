"""`jetway.known`: a core server asks over NATS whether a poller is known."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jetway.entry.questions import Endpoint, Told
from jetway.ports import HeartbeatMessage
from jetway.services.admit import LONGEST_NAME, Admission

REQUEST_LIMIT = 4096
"""Bytes of a question."""
ANSWERS_AT_ONCE = 10_000


class Question(BaseModel):
    """What is asked, as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    poller_id: str = Field(min_length=1, max_length=LONGEST_NAME)


def known_endpoint(admission: Admission, subject: str) -> Endpoint:
    """The twin of `GET /api/admin/admission/pollers/{id}`."""

    async def answer(message: HeartbeatMessage) -> Told:
        try:
            poller_id = read_question(message.data)
        except ValueError as error:
            unknown = {"known": False, "status": "", "source": "", "error": str(error)}
            return Told(json.dumps(unknown).encode(), 400, "malformed", str(error))
        found = admission.ask(poller_id)
        told = {"known": found.known, "status": found.status, "source": found.source}
        return Told(json.dumps(told).encode())

    return Endpoint(
        name="known",
        subject=subject,
        description="Whether a poller is known.",
        answer=answer,
        at_once=ANSWERS_AT_ONCE,
    )


def read_question(data: bytes) -> str:
    """The poller's id, from JSON or from plain text. Raises ValueError with a sentence that names the field."""
    if len(data) > REQUEST_LIMIT:
        raise ValueError(f"a question has at most {REQUEST_LIMIT} bytes")
    if data.lstrip()[:1] != b"{":
        return _read_text(data)
    try:
        return Question.model_validate_json(data).poller_id
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _read_text(data: bytes) -> str:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise ValueError("poller_id: must be UTF-8") from None
    if not 1 <= len(text) <= LONGEST_NAME:
        raise ValueError(f"poller_id: must have 1 to {LONGEST_NAME} characters")
    return text
