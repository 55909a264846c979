"""jetway run against a real nats-server with the streams that the daemon makes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from jetway.core.ids import Lineage, document_key, watch_key
from jetway.edge import link
from jetway.edge.errors import EdgeError, NotJoinedError
from jetway.edge.run import RunOptions, run
from support.fake_gateway import AGENT, PACKAGE, redeem_answer
from support.nats_server import settled
from support.ports import free_port

CHECKER_KEY = "config/agents/core-switch-room/checkers/{}.json"
CHECKER_COPY = "config.agents.core-switch-room.checkers.{}.json"
OWN_COPY = f"{watch_key(AGENT)}.json"
SUBJECT = AGENT.subject("edge.heartbeat")


class Server:
    """A nats-server with JetStream in a folder of its own, to be stopped and started again."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._config = folder / "nats.conf"
        self._log = folder / "nats.log"
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{folder}/js" }}\n{more}\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = Path(sys.executable).parent / "nats-server"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([binary, "-c", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                time.sleep(0.01)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    running.start()
    yield running
    running.kill()


@dataclass
class Gateway:
    """The daemon's part, played by hand: documents and answers to heartbeats."""

    nc: Client
    beats: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    inboxes: list[str] = field(default_factory=list)
    answer: dict[str, Any] | None = None
    stored: dict[str, bytes] = field(default_factory=dict)

    async def make_streams(self) -> None:
        bucket = {
            "max_msgs_per_subject": 1,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
            "storage": "file",
        }
        await self.api(
            "STREAM.CREATE.KV_config", {"name": "KV_config", "subjects": ["$KV.config.>"], **bucket}
        )
        cut = {"src": "$KV.config.*.json", "dest": "$KV.config_watch.{{split(1,/)}}"}
        view = {
            "name": "KV_config_watch",
            "sources": [{"name": "KV_config", "subject_transforms": [cut]}],
            "republish": {"src": "$KV.config_watch.config.>", "dest": "edge.config.>"},
        }
        await self.api("STREAM.CREATE.KV_config_watch", {**view, **bucket})

    async def api(self, subject: str, body: dict[str, Any]) -> None:
        message = await self.nc.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=30)
        assert "error" not in json.loads(message.data), message.data

    async def hear(self) -> None:
        await self.nc.subscribe("edge.heartbeat.>", cb=self._on_beat)
        await settled(self.nc)

    async def _on_beat(self, message: Msg) -> None:
        self.beats.append((message.subject, json.loads(message.data)))
        if message.reply:
            self.inboxes.append(message.reply)
            if self.answer is not None:
                await self.nc.publish(message.reply, json.dumps(self.answer).encode())

    async def put(self, key: str, **document: Any) -> None:
        filled = {"epoch": 1, "revision": 1, "created_at": "2026-01-01T00:00:00.000Z", **document}
        await self._store(key, json.dumps(filled).encode(), None)

    async def put_own(self, *children: str, **document: Any) -> None:
        listed = [{"type": "checker", "id": child} for child in children]
        await self.put(document_key(AGENT), children=listed, **{"status": "active", **document})

    async def delete(self, key: str) -> None:
        await self._store(key, b"", {"KV-Operation": "DEL"})

    async def settled(self) -> None:
        """Until the view, which the server fills by and by, has all that was stored."""
        async with asyncio.timeout(30):
            for key, data in list(self.stored.items()):
                shown = key.removesuffix(".json").replace("/", ".")
                subject = f"$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch.{shown}"
                while (await self.nc.request(subject, timeout=30)).data != data:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def _store(self, key: str, data: bytes, headers: dict[str, str] | None) -> None:
        self.stored[key] = data
        await self.nc.request(f"$KV.config.{key}", data, headers=headers, timeout=30)


@asynccontextmanager
async def gateway_at(url: str) -> AsyncIterator[Gateway]:
    nc = await nats.connect(url, reconnect_time_wait=0.1, max_reconnect_attempts=-1)
    try:
        yield Gateway(nc)
    finally:
        await nc.close()


@pytest.fixture
async def gateway(server: Server) -> AsyncIterator[Gateway]:
    async with gateway_at(server.url) as played:
        await played.make_streams()
        await played.hear()
        yield played


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    return joined_folder(tmp_path / "edge", server.url)


def joined_folder(
    folder: Path, url: str, *, interval: int = 30, lineage: Lineage = AGENT, package: str = PACKAGE
) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    answer = redeem_answer(nats_url=url, lineage=lineage, package_id=package)
    answer["heartbeat"]["interval_seconds"] = interval
    (folder / "new.json").write_text(json.dumps(answer))
    (folder / "new.json").replace(folder / "service.json")
    return folder


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(run(RunOptions(folder=folder), stop))
    try:
        yield stop
        assert stop.is_set() or not task.done(), task.exception()
    finally:
        stop.set()
        async with asyncio.timeout(30):
            assert await task == 0


async def until(condition: Callable[[], object], what: str = "", seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or "it did not happen in time"
        await asyncio.sleep(0.01)


async def until_silent(gateway: Gateway) -> int:
    """Until no beat comes for longer than two intervals of a second; how many came before."""
    async with asyncio.timeout(30):
        while True:
            count = len(gateway.beats)
            await asyncio.sleep(2.5)
            if len(gateway.beats) == count:
                return count


def copies(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "config").glob("*"))


def revision(folder: Path, name: str = OWN_COPY) -> int | None:
    try:
        return int(json.loads((folder / "config" / name).read_bytes())["revision"])
    except FileNotFoundError:
        return None


async def test_beats_and_copies(gateway: Gateway, folder: Path) -> None:
    gateway.answer = {"status": "active", "known": True, "interval_seconds": 20, "config_revision": 3}
    await gateway.put_own("ping", "ssh", revision=3)
    await gateway.put(CHECKER_KEY.format("ping"), revision=8)
    await gateway.put(CHECKER_KEY.format("ssh"))
    await gateway.settled()
    async with running(folder) as stop:
        await until(lambda: gateway.beats)
        subject, beat = gateway.beats[0]
        assert subject == SUBJECT
        assert beat["healthy"] is True and beat["config_revision"] == 3 and beat["interval_seconds"] == 30
        assert gateway.inboxes[0].startswith(AGENT.inbox_prefix)
        wanted = [CHECKER_COPY.format("ping"), CHECKER_COPY.format("ssh"), OWN_COPY]
        await until(lambda: copies(folder) == wanted)

        await gateway.put(CHECKER_KEY.format("ping"), revision=9)
        await until(lambda: revision(folder, CHECKER_COPY.format("ping")) == 9)
        await gateway.put(CHECKER_KEY.format("new"))
        await until(lambda: revision(folder, CHECKER_COPY.format("new")) == 1)
        await gateway.delete(CHECKER_KEY.format("ssh"))
        await until(lambda: CHECKER_COPY.format("ssh") not in copies(folder))
        stop.set()
        await until(lambda: gateway.beats[-1][1].get("stopping"))
    assert gateway.beats[-1][1]["interval_seconds"] == 20
    assert all((folder / "config" / name).stat().st_mode & 0o777 == 0o600 for name in copies(folder))


async def test_both_sides_were_away(server: Server, gateway: Gateway, folder: Path) -> None:
    """What was deleted, changed or created anew meanwhile is right again after the reconnect."""
    await gateway.put_own("gone", "changed", "kept", revision=5)
    for name in ("gone", "changed", "kept"):
        await gateway.put(CHECKER_KEY.format(name), revision=5)
    async with running(folder):
        await until(lambda: len(copies(folder)) == 4)
    await gateway.delete(CHECKER_KEY.format("gone"))
    await gateway.put(CHECKER_KEY.format("changed"), revision=6)
    await gateway.put(CHECKER_KEY.format("fresh"), revision=1)
    await gateway.put_own(
        "changed", "kept", "fresh", revision=5, label="children changed, the revision did not"
    )
    server.kill()
    async with running(folder):
        await asyncio.sleep(0.3)
        server.start()
        await until(lambda: revision(folder, CHECKER_COPY.format("changed")) == 6)
        await until(lambda: CHECKER_COPY.format("fresh") in copies(folder))
        await until(lambda: CHECKER_COPY.format("gone") not in copies(folder))
        assert CHECKER_COPY.format("kept") in copies(folder)


async def test_a_restarted_server_is_found_again(server: Server, gateway: Gateway, folder: Path) -> None:
    await gateway.put_own(revision=1)
    async with running(folder):
        await until(lambda: gateway.beats)
        server.kill()
        await asyncio.sleep(0.2)
        server.start()
        before = len(gateway.beats)
        await until(lambda: gateway.nc.is_connected)
        await gateway.put_own(revision=2)
        await until(lambda: revision(folder) == 2, "the change was missed")
        await until(lambda: len(gateway.beats) > before, "no heartbeat after the reconnect")


async def test_an_older_document_never_replaces_a_newer_one(gateway: Gateway, folder: Path) -> None:
    await gateway.put_own(epoch=2, revision=5)
    async with running(folder):
        await until(lambda: revision(folder) == 5)
        await gateway.put_own(epoch=1, revision=9)
        await gateway.put_own(epoch=2, revision=4)
        await gateway.put_own(epoch=3, revision=1)
        await until(lambda: revision(folder) == 1)


async def test_an_answer_that_another_host_had_sent_here_is_no_change(gateway: Gateway, folder: Path) -> None:
    """The server answers a question to whatever subject the question names, also to another host's."""
    own_live = "edge." + watch_key(AGENT)
    await gateway.put_own(revision=1)
    await gateway.put("config/pollers/other.json", revision=9)
    await gateway.put("config/pollers/gone.json", revision=9)
    await gateway.delete("config/pollers/gone.json")
    async with running(folder):
        await until(lambda: revision(folder) == 1)
        for other in ("other", "gone"):
            subject = f"$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch.config.pollers.{other}"
            await gateway.nc.publish(subject, b"", reply=own_live)
        await settled(gateway.nc)
        await gateway.put(CHECKER_KEY.format("after"), revision=1)
        await until(lambda: CHECKER_COPY.format("after") in copies(folder))
        assert revision(folder) == 1


async def test_a_revoked_service_falls_silent_and_comes_back(
    server: Server, gateway: Gateway, tmp_path: Path
) -> None:
    folder = joined_folder(tmp_path / "edge", server.url, interval=1)
    await gateway.put_own(revision=1, heartbeat_interval_seconds=1)
    async with running(folder):
        await until(lambda: len(gateway.beats) >= 2)
        await gateway.put_own(revision=2, status="revoked", heartbeat_interval_seconds=1)
        await until(lambda: revision(folder) == 2)
        silent_at = await until_silent(gateway)
        await gateway.put_own(revision=3, status="pending", heartbeat_interval_seconds=1)
        await until(lambda: len(gateway.beats) > silent_at)
    await until(lambda: gateway.beats[-1][1].get("stopping"))


async def test_a_deleted_service_falls_silent_without_a_goodbye(gateway: Gateway, folder: Path) -> None:
    await gateway.put_own(revision=1)
    async with running(folder):
        await until(lambda: gateway.beats and copies(folder))
        await gateway.delete(document_key(AGENT))
        await until(lambda: not copies(folder))
    assert len(gateway.beats) == 1


async def test_a_shorter_interval_counts_at_once(gateway: Gateway, folder: Path) -> None:
    await gateway.put_own(revision=1, heartbeat_interval_seconds=3600)
    async with running(folder):
        await until(lambda: gateway.beats and copies(folder))
        await gateway.put_own(revision=2, heartbeat_interval_seconds=1)
        await until(lambda: len(gateway.beats) >= 3)
        assert gateway.beats[-1][1]["interval_seconds"] == 1


async def test_an_answer_with_a_newer_revision_makes_it_read_again(
    gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that no live message told of, for example because the server dropped it."""
    # The answer comes after a write; a heartbeat that gave up on it would try again half a minute later.
    monkeypatch.setattr(link, "REQUEST_TIMEOUT", 20.0)
    await gateway.put_own(revision=1)
    await gateway.settled()
    folder_answer = json.loads((folder / "service.json").read_text())
    folder_answer["config"]["live_subjects"] = [
        f"deaf.{key}" for key in folder_answer["config"]["watch_keys"]
    ]
    (folder / "service.json").write_text(json.dumps(folder_answer))

    async def change_before_answering(message: Msg) -> None:
        if not message.reply:  # the last heartbeat, at the end: nobody waits for an answer
            return
        await gateway.put_own(revision=2)
        await gateway.settled()
        await gateway.nc.publish(
            message.reply, json.dumps({"status": "active", "config_revision": 2}).encode()
        )

    await gateway.nc.subscribe("edge.heartbeat.agent.>", cb=change_before_answering)
    async with running(folder):
        await until(lambda: revision(folder) == 2)


async def test_without_streams_and_daemon_the_beats_go_on(server: Server, tmp_path: Path) -> None:
    folder = joined_folder(tmp_path / "edge", server.url, interval=1)
    async with gateway_at(server.url) as gateway:
        await gateway.hear()
        async with running(folder):
            await until(lambda: len(gateway.beats) >= 2)


async def test_once_sends_one_beat_and_reads_everything(gateway: Gateway, folder: Path) -> None:
    await gateway.put_own("ping", revision=1)
    await gateway.put(CHECKER_KEY.format("ping"))
    await gateway.settled()
    async with asyncio.timeout(30):
        assert await run(RunOptions(folder=folder, beats=1), asyncio.Event()) == 0
    assert len(copies(folder)) == 2
    await until(lambda: len(gateway.beats) == 1)
    assert "stopping" not in gateway.beats[0][1]


async def test_a_limited_run_of_a_revoked_service_fails(gateway: Gateway, folder: Path) -> None:
    await gateway.put_own(revision=1, status="revoked")
    await gateway.settled()
    assert await run(RunOptions(folder=folder, beats=1), asyncio.Event()) == 1
    assert gateway.beats == []


async def test_a_new_join_is_noticed(server: Server, gateway: Gateway, folder: Path) -> None:
    other = Lineage(AGENT.service_type, "site-a", "other")
    async with running(folder):
        await until(lambda: gateway.beats)
        joined_folder(folder, server.url, lineage=other)
        await until(lambda: gateway.beats[-1][0] == other.subject("edge.heartbeat"))
        assert gateway.inboxes[-1].startswith(other.inbox_prefix)


async def test_the_program_ends_in_time_while_nats_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only when it tries again."""
    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(f"jetway.edge.run.{name}", 600.0)
    folder = joined_folder(tmp_path / "edge", f"nats://127.0.0.1:{free_port()}")
    async with running(folder):
        await asyncio.sleep(0.5)


async def test_one_at_a_time(gateway: Gateway, folder: Path) -> None:
    async with running(folder):
        await until(lambda: gateway.beats)
        with pytest.raises(EdgeError, match="another jetway run"):
            await run(RunOptions(folder=folder), asyncio.Event())


async def test_a_folder_that_was_not_joined(tmp_path: Path) -> None:
    with pytest.raises(NotJoinedError, match="jetway join"):
        await run(RunOptions(folder=tmp_path), asyncio.Event())


async def test_the_rights_of_an_edge_host_are_enough(tmp_path: Path) -> None:
    """Its heartbeat, direct gets of its own keys, its live subjects and its inbox: `run` needs no more."""
    server = Server(tmp_path, _grants())
    server.start()
    folder = joined_folder(tmp_path / "edge", server.url.replace("nats://", "nats://edge:edge@"))
    try:
        async with gateway_at(server.url.replace("nats://", "nats://gateway:gateway@")) as gateway:
            await gateway.make_streams()
            await gateway.hear()
            gateway.answer = {"status": "active", "known": True, "interval_seconds": 30, "config_revision": 1}
            await gateway.put_own("ping", revision=1)
            await gateway.put(CHECKER_KEY.format("ping"))
            await gateway.settled()
            async with running(folder):
                await until(lambda: gateway.beats and len(copies(folder)) == 2)
                await gateway.put_own("ping", revision=2)
                await until(lambda: revision(folder) == 2)
            await until(lambda: gateway.beats[-1][1].get("stopping"))
        assert "Permissions Violation" not in (tmp_path / "nats.log").read_text()
    finally:
        server.kill()


def _grants() -> str:
    direct = "$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch"
    own, children = watch_key(AGENT), "config.agents.core-switch-room.checkers.*"
    return f"""authorization {{ users = [
      {{ user: gateway, password: gateway }},
      {{ user: edge, password: edge, permissions: {{
          publish: ["{SUBJECT}", "{direct}.{own}", "{direct}.{children}"],
          subscribe: ["{AGENT.inbox_prefix}>", "edge.{own}", "edge.{children}"] }} }} ] }}"""


def test_sigterm_says_goodbye_and_exits_0(server: Server, folder: Path) -> None:
    asyncio.run(_sigterm(server, folder))


async def _sigterm(server: Server, folder: Path) -> None:
    async with gateway_at(server.url) as gateway:
        await gateway.make_streams()
        await gateway.hear()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "jetway",
            "run",
            "--dir",
            str(folder),
            stderr=asyncio.subprocess.PIPE,
            env=os.environ,
        )
        await until(lambda: gateway.beats)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors
        await until(lambda: gateway.beats[-1][1].get("stopping"))
