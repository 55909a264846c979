"""Reading configuration over a link that loses answers: what came is kept, and what did not is asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jetway.edge.link import LinkError
from jetway.edge.mirror import Mirror
from jetway.edge.sync import Sync

OWN = "config.pollers.site-a.agents.core"
FILTER = "config.agents.core.checkers.*"
CHILDREN = [f"config.agents.core.checkers.c{number:02}" for number in range(40)]
BEFORE_A_KEY = "$JS.hub.API.DIRECT.GET.KV_config_watch.$KV.config_watch."


def document(**more: Any) -> bytes:
    return json.dumps({"epoch": 1, "revision": 1, "created_at": "2026-01-01T00:00:00.000Z"} | more).encode()


class Link:
    """Answers direct gets, but for those that are lost."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lost: set[str] = set()
        self.document = document()

    async def request(self, subject: str, *, timeout: float) -> Any:
        assert timeout >= 10
        assert subject.startswith(BEFORE_A_KEY)
        key = subject.removeprefix(BEFORE_A_KEY)
        self.asked.append(key)
        if key in self.lost:
            raise LinkError("timeout")
        headers = {"Nats-Subject": f"$KV.config_watch.{key}", "Nats-Sequence": "7"}
        return SimpleNamespace(data=self.document, headers=headers)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    made = Mirror(tmp_path / "config", OWN, FILTER)
    made.load()
    children = [{"type": "checker", "id": key.rpartition(".")[2]} for key in CHILDREN]
    made.put(OWN, document(children=children), 5)
    return made


def sync_over(link: Link, mirror: Mirror, own_changed: Callable[[], None] = lambda: None) -> Sync:
    config = SimpleNamespace(watch_bucket="config_watch", js_api="$JS.hub.API", live_subjects=())
    joined = SimpleNamespace(config=config, own_key=OWN, live_prefix="edge.")
    return Sync(cast("Any", link), cast("Any", joined), mirror, own_changed)


async def test_an_answer_that_is_lost_costs_no_other(mirror: Mirror) -> None:
    link = Link()
    sync = sync_over(link, mirror)
    link.lost = {CHILDREN[3]}
    with pytest.raises(LinkError):
        await sync.read_children(only_changes=False)
    assert sorted(link.asked) == CHILDREN
    assert mirror.present_children() == set(CHILDREN) - link.lost


async def test_only_what_was_lost_is_asked_for_again(mirror: Mirror) -> None:
    link = Link()
    sync = sync_over(link, mirror)
    await sync.read_children(only_changes=False)
    link.lost = {CHILDREN[3]}  # it stands on the disk, and has changed since, perhaps
    with pytest.raises(LinkError):
        await sync.read_children(only_changes=False)
    link.asked.clear()
    with pytest.raises(LinkError):
        await sync.read_children(only_changes=True)
    link.lost.clear()
    await sync.read_children(only_changes=True)
    assert link.asked == [CHILDREN[3]] * 2
    await sync.read_children(only_changes=True)
    assert len(link.asked) == 2


async def test_a_full_disk_keeps_nobody_from_learning_of_the_own_document(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    told: list[str] = []
    link = Link()
    link.document = document(revision=2, status="revoked")
    sync = sync_over(link, mirror, lambda: told.append("changed"))
    monkeypatch.setattr("jetway.edge.mirror.write_file", full)
    await sync.read_own()
    await sync.read_own()
    assert mirror.own is not None and mirror.own["status"] == "revoked"
    assert told == ["changed"], "and not each time that the disk is still full"


async def test_where_nobody_answers_not_all_are_asked(mirror: Mirror) -> None:
    link = Link()
    link.lost = set(CHILDREN)
    with pytest.raises(LinkError):
        await sync_over(link, mirror).read_children(only_changes=False)
    assert len(link.asked) == 16
