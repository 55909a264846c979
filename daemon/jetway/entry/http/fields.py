"""The types of single fields, each with its bounds, true in validation and in the API's description alike."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StringConstraints, WithJsonSchema

from jetway.core.ids import ID_PATTERN
from jetway.core.times import parse_rfc3339
from jetway.entry.http.problems import PATTERN_WORDS

METADATA_BYTES = 16 * 1024
CONFIG_BYTES = 64 * 1024
LEVELS = 32
"""How deep free JSON may be nested: it is read by many parsers after this one."""
LABELS = 64
TOKEN_TTL_MAX = int(timedelta(days=30).total_seconds())
_INT64 = 2**63

_CONTROL = r"\x00-\x1F\x7F-\x9F"
_LABEL = rf"^[^{_CONTROL}\x20\xA0][^{_CONTROL}]*$"
_LINE = rf"^[^{_CONTROL}]*$"
_TEXT = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$"
_LABEL_KEY = r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
_KEY = _LABEL_KEY.strip("^$")
_SELECTOR = rf"^(!?{_KEY}|{_KEY}!?=[^{_CONTROL}]*)$"
_SPIFFE = r"^(spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*)?$"
_KIND = r"^([a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)?$"
_OPTIONAL_ID = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"
_SERVICE = rf"^(poller|agent|checker)\.{ID_PATTERN.strip('^$')}$"
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
_IDEMPOTENCY_KEY = r"^[\x21-\x7E]{1,255}$"
_CURSOR = r"^[A-Za-z0-9_=.~:-]{1,4096}$"
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z")

PATTERN_WORDS |= {
    _LABEL: "must begin with a visible character and hold no control characters",
    _LINE: "must hold no control characters",
    _TEXT: "must hold no control characters except line breaks and tabs",
    _LABEL_KEY: "must be letters, digits and inner . _ - / only, at most 63",
    _SELECTOR: "must be key=value, key, key!=value or !key, the key as labels have it",
    _SPIFFE: "must be a SPIFFE id, spiffe://<trust domain>/<path>",
    _KIND: "must be lower-case letters, digits and inner - or _, at most 63",
    _OPTIONAL_ID: PATTERN_WORDS[ID_PATTERN],
    _SERVICE: "must be a service as type.id, such as poller.site-a",
    _UUID: "must be a UUID in lower case",
    _NAME: "must be letters, digits, _ - and single inner dots, at most 63",
    _IDEMPOTENCY_KEY: "must be 1 to 255 visible ASCII characters",
    _CURSOR: "must be a next_cursor of an earlier answer, unchanged",
}


def _whole(value: object) -> object:
    """JSON has one kind of number: 30.0 is 30."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _sane(value: JsonValue, levels: int = LEVELS) -> JsonValue:
    """Free JSON that every reader after us can read. Raises ValueError."""
    if levels < 0:
        raise ValueError(f"must not be nested deeper than {LEVELS} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must not hold NaN, Infinity or a number that is too large")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise ValueError("must not hold a whole number beyond 64 bits")
    children: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _sane(child, levels - 1)
    return value


def _json_of_at_most(limit: int) -> AfterValidator:
    """Free JSON, bounded as a whole."""

    def check(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        _sane(value)
        if len(json.dumps(value, ensure_ascii=False).encode()) > limit:
            raise ValueError(f"must have at most {limit // 1024} KiB as JSON")
        return value

    return AfterValidator(check)


def _time(value: object) -> object:
    if not isinstance(value, str) or not _RFC3339.match(value):
        raise ValueError("must be a time like 2026-11-23T09:10:11.123Z")
    try:
        return parse_rfc3339(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a time that exists, like 2026-11-23T09:10:11.123Z") from None


def _truth(value: object) -> object:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def _digits(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("must be a whole number")
    return int(value)


def _pattern(pattern: str, most: int, least: int = 0) -> StringConstraints:
    return StringConstraints(pattern=pattern, min_length=least, max_length=most)


# --- in bodies

Label = Annotated[str, _pattern(_LABEL, 200, 1)]
Line = Annotated[str, _pattern(_LINE, 200)]
Notes = Annotated[str, _pattern(_TEXT, 2000)]
Reason = Annotated[str, _pattern(_TEXT, 500)]
OptionalId = Annotated[str, _pattern(_OPTIONAL_ID, 63)]
Kind = Annotated[str, _pattern(_KIND, 63)]
SpiffeId = Annotated[str, _pattern(_SPIFFE, 2048)]
LabelKey = Annotated[str, _pattern(_LABEL_KEY, 63, 1)]
LabelSelector = Annotated[str, _pattern(_SELECTOR, 320, 1)]
LabelValue = Annotated[str, _pattern(_LINE, 255)]
Labels = Annotated[
    dict[LabelKey, LabelValue], Field(max_length=LABELS, json_schema_extra={"additionalProperties": False})
]
Metadata = Annotated[dict[str, JsonValue], _json_of_at_most(METADATA_BYTES)]
CheckerConfig = Annotated[dict[str, JsonValue], _json_of_at_most(CONFIG_BYTES)]
IntervalSeconds = Annotated[int, Field(ge=1, le=86_400), BeforeValidator(_whole)]
TokenTtlSeconds = Annotated[int, Field(ge=60, le=TOKEN_TTL_MAX), BeforeValidator(_whole)]
ExpirySeconds = Annotated[int, Field(ge=60, le=10 * 366 * 86_400), BeforeValidator(_whole)]
TokenName = Annotated[str, _pattern(_NAME, 63, 1)]

# --- in paths, queries and headers

ServiceName = Annotated[str, _pattern(_SERVICE, 71)]
PackageId = Annotated[str, _pattern(_UUID, 36)]
IdempotencyKey = Annotated[str, _pattern(_IDEMPOTENCY_KEY, 255, 1)]
Cursor = Annotated[str, _pattern(_CURSOR, 4096)]
Search = Annotated[str, _pattern(_LINE, 200)]
QueryTime = Annotated[
    datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})
]
QueryTruth = Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})]
QueryNumber = Annotated[int, BeforeValidator(_digits)]
Limit = Annotated[int, Field(ge=1, le=500), BeforeValidator(_digits)]
