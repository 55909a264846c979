"""Time as the outside sees it: RFC 3339 in UTC with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, PlainSerializer


def to_milliseconds(moment: datetime) -> datetime:
    """The same moment in UTC, cut to whole milliseconds: what is stored equals what is shown."""
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def rfc3339(moment: datetime) -> str:
    """`2026-11-23T09:10:11.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The moment that `text` names. Raises ValueError when it is not RFC 3339 or has no offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, for example 2026-11-23T09:10:11.123Z")
    try:
        return to_milliseconds(moment)
    except OverflowError as error:
        raise ValueError("a time lies between the years 1 and 9999 in UTC") from error


Timestamp = Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
"""An aware datetime that JSON shows as RFC 3339 in UTC with milliseconds."""
