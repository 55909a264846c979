"""Values as people read them: the filters of the templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

from multidict import MultiMapping
from pydantic import JsonValue

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_KINDS = {"poller": "Poller", "agent": "Agent", "checker": "Checker"}
_ACTORS = {"heartbeat": "its heartbeat", "installer": "its installer"}
_SOURCES = {
    "edge_onboarding": "Onboarded here",
    "k8s_spiffe": "Kubernetes",
    "config": "Registered by hand",
    "implicit": "Announced itself",
}


def distance(seconds: float) -> str:
    """`3 min`, in the largest unit that fits."""
    whole = int(abs(seconds))
    for size, unit in _UNITS:
        if whole >= size:
            return f"{whole // size} {unit}"
    return "0 s"


def relative(moment: datetime, now: datetime) -> str:
    """`3 min ago`, `in 2 h`, `just now`."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 2:
        return "just now"
    return f"{distance(seconds)} ago" if seconds > 0 else f"in {distance(seconds)}"


def countdown(moment: datetime, now: datetime) -> str:
    """`23:59:58`, what is left until then; days before it where there are any."""
    days, left = divmod(max(0, int((moment - now).total_seconds())), 86_400)
    clock = f"{left // 3600:02}:{left // 60 % 60:02}:{left % 60:02}"
    return f"{days} d {clock}" if days else clock


def lasting(span: timedelta | int) -> str:
    """How long something takes, `24 h`; a number is seconds."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    return distance(seconds)


def sentence(text: str) -> str:
    """A detail as a sentence of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def worded(text: str) -> str:
    """`pending_expired` as `Pending expired`."""
    return "NATS" if text == "nats" else text.replace("_", " ").capitalize()


def actor(name: str) -> str:
    """Who did it; whose id stands beside it anyway is called by what he is."""
    return _ACTORS.get(name.partition(":")[0], name) if ":" in name else name


def kind(service_type: str) -> str:
    """A service type's name."""
    return _KINDS.get(service_type, service_type)


def source(registration_source: str) -> str:
    """How a service came in."""
    return _SOURCES.get(registration_source, worded(registration_source))


def plain_json(value: JsonValue) -> str:
    """Free JSON on several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def with_query(path: str, query: MultiMapping[str], changed: Mapping[str, str | None]) -> str:
    """The same page with some parameters changed, or, with None, left out."""
    kept = [(name, value) for name, value in query.items() if name not in changed and value]
    kept += [(name, value) for name, value in changed.items() if value]
    return f"{path}?{urlencode(kept)}" if kept else path
