"""Versions in headers: ETag on single things, If-None-Match on reads, If-Match on changes.

Both kinds of tags begin with the version of the service's record, `<epoch>-<revision>`. A package is shown from
the record alone, so its tag is strong. A service is shown with what heartbeats and the tree add, so its tag is
weak and carries a digest of the whole. A change depends on the record alone: of a tag in If-Match the version is
compared, and nothing else, so `"<epoch>-<revision>"` made of any answer's fields will do.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import BaseModel, StringConstraints

from jetway.entry.http import models as m
from jetway.entry.http.api import Header, Reply
from jetway.entry.http.problems import PATTERN_WORDS
from jetway.services.catalogue import PackageView

T = TypeVar("T", bound=BaseModel)

_TAG = r'(W/)?"[\x21\x23-\x7E]{0,128}"'
_TAGS = rf"^(\*|{_TAG}( ?, ?{_TAG}){{0,15}})$"
_OPAQUE = re.compile(r'"([^"]*)"')
_VERSION = re.compile(r"([0-9]{1,18})-([0-9]{1,18})(-[0-9a-f]+)?\Z")
PATTERN_WORDS[_TAGS] = "must be * or entity tags, each in double quotes"

HEADERS = {"ETag": "Its version, for If-None-Match and If-Match."}
Tags = Annotated[str, StringConstraints(pattern=_TAGS, max_length=2048)]
IfMatch = Annotated[
    Tags | None,
    Header(
        "If-Match",
        'Change it only at this version: an ETag, or "<epoch>-<revision>" of an answer. `*`: at any.',
    ),
]
IfNoneMatch = Annotated[
    Tags | None, Header("If-None-Match", "An ETag: 304 without a body where nothing has changed.")
]


def versions(if_match: str | None) -> frozenset[tuple[int, int]] | None:
    """The versions that a change may build on; None: any. A tag that is none of ours names no version."""
    if if_match is None or if_match == "*":
        return None
    found = (_VERSION.match(opaque) for opaque in _OPAQUE.findall(if_match))
    return frozenset((int(match[1]), int(match[2])) for match in found if match)


def of_service(shown: m.Service) -> str:
    """Weak, of everything that is shown."""
    digest = hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:16]
    return f'W/"{shown.epoch}-{shown.revision}-{digest}"'


def of_package(view: PackageView) -> str:
    """Strong, of the record."""
    return f'"{view.record.epoch}-{view.record.revision}"'


def answer(body: T, tag: str, if_none_match: str | None) -> Reply[T] | web.Response:
    """The body with its tag, or 304 where the client has it. Tags are compared weakly here."""
    if if_none_match is not None and _has(if_none_match, tag):
        return web.Response(status=304, headers={"ETag": tag})
    return Reply(body, {"ETag": tag})


def _has(if_none_match: str, tag: str) -> bool:
    return if_none_match == "*" or tag.removeprefix("W/") in re.findall(r'"[^"]*"', if_none_match)
