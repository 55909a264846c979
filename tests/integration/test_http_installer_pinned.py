"""install.sh and the command that fetches it, where the gateway has an authority of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jetway.adapters.authority.ca import OwnAuthority
from jetway.adapters.authority.server_certificate import GivenServerCertificate
from jetway.edge.joined import load_joined
from jetway.entry.http.packages import install_commands
from jetway.entry.http.system import installer
from support import require_program
from support.builders import FakeClock
from support.fake_gateway import FakeGateway, Reply, Request, fake_gateway
from support.http_world import World, http_world
from support.tls import authority, server_context, server_file
from support.tls_world import served_by

OURS = authority()
ROOT = "/api/edge/ca.pem"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path / "world") as made:
        yield made


@pytest.fixture
async def url(world: World, tmp_path: Path) -> AsyncIterator[str]:
    """The gateway, over HTTPS by its own authority."""
    file = server_file(tmp_path, OURS)
    source = GivenServerCertificate(file, file, FakeClock(datetime.now(UTC)))
    async with served_by(OURS, world, tmp_path, source, tls="own") as (server, _):
        yield server.url


@pytest.fixture(autouse=True)
def _programs() -> None:
    require_program("curl")
    require_program("openssl")


async def run(command: list[str], token: str, **more: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "JETWAY_JOIN_TOKEN": token, **more},
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def script_for(folder: Path, url: str, pin: str) -> str:
    path = folder / "install.sh"
    path.write_bytes(installer(url, pin))
    return str(path)


async def test_the_command_fetches_the_script_and_the_script_joins(
    world: World, url: str, tmp_path: Path
) -> None:
    token = (await world.create("poller", "site-a"))["token"]
    command = install_commands(url, "site-a", OURS.pin).shell
    folder = tmp_path / "edge"
    here = command.replace("/etc/jetway-edge/site-a", str(folder))
    assert here != command
    status, said = await run(["sh", "-c", here], token, TMPDIR=str(tmp_path))
    assert status == 0, said
    assert load_joined(folder).name == "poller site-a"
    assert token not in said + command


async def test_the_command_runs_nothing_of_a_stranger(tmp_path: Path) -> None:
    his = authority()
    for shown in (his.root_pem, OURS.root_pem, OURS.root_pem + his.root_pem):
        with stranger(tmp_path, shown, his) as running:
            command = install_commands(running.url, "site-a", OURS.pin).shell
            status, said = await run(["sh", "-c", command], "jw1.a.b", TMPDIR=str(tmp_path))
        assert [each.path for each in running.requests] == [ROOT], said
        assert not (tmp_path / "hacked").exists()
        assert "jw1" not in str(running.requests) + said
        assert status != 0 or "curl" in said


@contextmanager
def stranger(folder: Path, shown: str, owner: OwnAuthority) -> Iterator[FakeGateway]:
    """A server by another authority, which says that its root is `shown`, and has a script of its own."""

    def answer(request: Request) -> Reply:
        return Reply(200, (shown if request.path == ROOT else f"touch {folder}/hacked\n").encode())

    with fake_gateway(server_context(server_file(folder, owner))) as running:
        running.answer = answer
        yield running


async def test_the_script_sends_a_stranger_nothing(tmp_path: Path) -> None:
    his = authority()
    for number, shown in enumerate((his.root_pem, OURS.root_pem, OURS.root_pem + his.root_pem, "nonsense")):
        folder = tmp_path / str(number)
        with stranger(tmp_path, shown, his) as running:
            script = script_for(tmp_path, running.url, OURS.pin)
            status, said = await run(["sh", script, "--dir", str(folder)], "jw1.a.b")
        assert status == 1, said
        assert [each.path for each in running.requests] == [ROOT], said
        assert list(folder.iterdir()) == []


async def test_without_the_means_to_know_the_gateway_it_refuses(url: str, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in "sh tar gzip mkdir chmod mktemp rm mv cat tr cut sed uname stty grep wget curl".split():  # noqa: SIM905
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    script = script_for(tmp_path, url, OURS.pin)
    status, said = await run(
        [shutil.which("sh") or "sh", script, "--dir", str(tmp_path / "d")], "jw1.a.b", PATH=str(tools)
    )
    assert status == 1
    assert "it takes curl and openssl" in said
