"""The config document on the page of its service: what it says without its secrets, and how it stands."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass

from pydantic import JsonValue

from jetway.core.documents import Document
from jetway.core.drift import Drift
from jetway.core.errors import PortError
from jetway.core.ids import ServiceKey
from jetway.logs import MASK, mask
from jetway.services.document_state import DocumentReader, DocumentState

LONGEST = 64 * 1024
"""Characters of a document that a page shows."""
_CHILDREN = 100
"""Of a parent's children, how many are shown in its document."""
_SECRET = re.compile(
    r"token|secret|passw|passphrase|pwd|cred|authori[sz]ation|private|priv_?key|auth_?key|api_?key|access_?key"
    r"|seed|community|cookie|bearer",
    re.IGNORECASE,
)
_FOR_OPERATORS = "[shown to operators]"
_SENTENCES = {
    Drift.DOCUMENT_MISSING: "It is not there. The gateway writes it by itself; reconcile does so now.",
    Drift.DOCUMENT_STALE: "It is behind: the gateway has yet to write the newest revision.",
    Drift.DOCUMENT_CHANGED: "Somebody changed it. The next reconcile puts it right.",
    Drift.DOCUMENT_ORPHANED: "The service is deleted, its document is still there. The next reconcile deletes it.",
}
_AWAY = "NATS is away, so the document cannot be read. It is asked for again with the page."


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document as its page shows it."""

    mark: str
    """`ok`, `edited`, or what is wrong."""
    sentence: str
    text: str = ""
    is_cut: bool = False
    size: int = 0
    differs: tuple[str, ...] = ()


async def show_document(reader: DocumentReader, key: ServiceKey, *, with_config: bool) -> ShownDocument:
    """The document, or a sentence that says why it cannot be shown.

    `with_config`: whether the reader may see the checker's configuration, which can hold what no field's name
    tells to be a secret.
    """
    try:
        state = await reader.read(key)
    except PortError:
        return ShownDocument("unknown", _AWAY)
    if state is None:
        return ShownDocument("unknown", "The service is not known here any more.")
    return await asyncio.to_thread(_shown, state, with_config)


def _shown(state: DocumentState, with_config: bool) -> ShownDocument:
    mark, sentence = _judgement(state)
    if state.document is None:
        return ShownDocument(mark, sentence, size=state.size)
    text = json.dumps(_without_secrets(state.document, with_config), indent=2, ensure_ascii=False)
    names = tuple(name[:60] for name in state.differs)
    return ShownDocument(mark, sentence, text[:LONGEST], len(text) > LONGEST, state.size, names)


def _judgement(state: DocumentState) -> tuple[str, str]:
    if state.drift:
        name = state.drift.value.removeprefix("document_")
        if state.size and state.document is None:
            return name, "What stands there is no config document. The next reconcile puts it right."
        return name, _SENTENCES[state.drift]
    if not state.size:
        return "ok", "A deleted service has none."
    if state.edited:
        return (
            "edited",
            "It is as the gateway wrote it, but for the checker_config, which a person changed. It is kept.",
        )
    return "ok", "It is as the gateway wrote it."


def _without_secrets(document: Document, with_config: bool) -> JsonValue:
    shown = {name: hide(value) for name, value in _abridged(document).items()}
    if not with_config and shown.get("checker_config"):
        shown["checker_config"] = _FOR_OPERATORS
    return shown


def _abridged(document: Document) -> Document:
    """Without the most of a parent's children, which the page lists anyway."""
    children = document.get("children")
    if not isinstance(children, list) or len(children) <= _CHILDREN:
        return document
    return document | {"children": [*children[:_CHILDREN], f"and {len(children) - _CHILDREN} more"]}


def hide(value: JsonValue) -> JsonValue:
    """Free JSON without what its fields' names, or its looks, tell to be a secret."""
    if isinstance(value, dict):
        return {name: MASK if each and _SECRET.search(name) else hide(each) for name, each in value.items()}
    if isinstance(value, list):
        return [hide(each) for each in value]
    return mask(value) if isinstance(value, str) else value
