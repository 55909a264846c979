"""The settings in effect, as people see them: `jetway check-config` prints them, the dashboard shows them."""

from __future__ import annotations

import re
from typing import Any

from jetway.settings import Settings

HIDDEN = "[hidden]"
_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")


def describe(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, what is derived from others filled in, secrets hidden."""
    effective = settings.model_dump(mode="json")
    effective["http"]["public_url"] = settings.public_url
    effective["nats"]["public_urls"] = list(settings.nats_public_urls)
    # Of the secret, the database's URL, all but a password is worth seeing.
    effective["database"]["url"] = settings.database_url
    hidden: dict[str, Any] = _hide(effective)
    return hidden


def _hide(value: Any) -> Any:
    """User and password out of all URLs."""
    if isinstance(value, dict):
        return {name: _hide(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hide(item) for item in value]
    return _USERINFO.sub(HIDDEN, value) if isinstance(value, str) else value
