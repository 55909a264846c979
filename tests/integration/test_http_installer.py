"""GET /install.sh, run for real by the shells and the download programs of this machine."""

from __future__ import annotations

import asyncio
import os
import pty
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetway.edge.joined import load_joined
from jetway.entry.http.system import installer
from support.http_world import World, http_world

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
CLIENTS = [client for client in ("curl", "wget") if shutil.which(client)]
TOOLS = "sh tar gzip mkdir chmod mktemp rm mv cat tr cut sed uname stty grep head sleep dirname env"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as made:
        yield made


@pytest.fixture
async def script(world: World, tmp_path: Path) -> Path:
    answer = await world.call("GET", "/install.sh", role=None)
    assert answer.headers["Content-Type"].startswith("text/x-shellscript")
    path = tmp_path / "install.sh"
    path.write_bytes(answer.body)
    return path


def search_path(folder: Path, *clients: str) -> str:
    """A folder with the tools that the script may use, and of the clients these alone."""
    tools = folder / "bin"
    tools.mkdir()
    for name in (*TOOLS.split(), *clients):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    return str(tools)


async def run(command: list[str], **more: object) -> tuple[int, str]:
    """Run without holding up the server in this process; the status and what was said."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("client", CLIENTS)
async def test_it_joins(world: World, script: Path, tmp_path: Path, shell: str, client: str) -> None:
    token = (await world.create("poller", "site-a"))["token"]
    folder = tmp_path / "edge host" / "site-a"
    found = shutil.which(shell)
    assert found
    env = {"PATH": search_path(tmp_path, client), "JETWAY_JOIN_TOKEN": token}
    status, said = await run([found, str(script), "--dir", str(folder)], env=env, stdin=subprocess.DEVNULL)
    assert status == 0, said
    assert token not in said
    assert f"start it: {folder}/start.sh" in said
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", "service.json", "start.sh"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "service.json").stat().st_mode & 0o777 == 0o600
    assert load_joined(folder).name == "poller site-a"


async def test_the_token_may_come_from_standard_input(world: World, script: Path, tmp_path: Path) -> None:
    token = (await world.create("poller", "site-a"))["token"]
    given = tmp_path / "token"
    given.write_text(token + "\n")
    with given.open() as stream:
        status, said = await run(["sh", str(script), "--dir", str(tmp_path / "d")], stdin=stream)
    assert status == 0, said


async def test_piped_into_a_shell_it_asks_at_the_terminal_without_echo(world: World, tmp_path: Path) -> None:
    token = (await world.create("poller", "site-a"))["token"]
    command = f"curl -fsS {world.server.url}/install.sh | sh -s -- --dir {tmp_path / 'd'}"
    status, shown = await asyncio.to_thread(_at_a_terminal, command, token)
    assert status == 0, shown
    assert "Token: " in shown
    assert token not in shown
    assert (tmp_path / "d" / "service.json").exists()


def _at_a_terminal(command: str, typed: str) -> tuple[int, str]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", command])  # noqa: S606
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
            if shown.endswith(b"Token: "):
                # The echo is turned off right after the question.
                _wait_for_silence(terminal)
                os.write(terminal, typed.encode() + b"\n")
    except OSError:  # the other side is gone
        pass
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def _wait_for_silence(terminal: int) -> None:
    import termios
    import time

    for _ in range(500):
        if not termios.tcgetattr(terminal)[3] & termios.ECHO:
            return
        time.sleep(0.01)


async def test_a_refusal_is_shown_and_leaves_nothing(world: World, script: Path, tmp_path: Path) -> None:
    token = (await world.create("poller", "site-a"))["token"]
    await world.redeem(token, host={"hostname": "edge-1"})
    for client in CLIENTS:
        folder = tmp_path / client
        folder.mkdir()
        env = {"PATH": search_path(folder, client), "JETWAY_JOIN_TOKEN": token}
        target = folder / "d"
        status, said = await run(
            ["/bin/sh", str(script), "--dir", str(target)], env=env, stdin=subprocess.DEVNULL
        )
        assert status == 1
        assert "already redeemed by edge-1" in said, said
        assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "token", ["hello", "jw1.a b.c", 'jw1.x"; touch hacked; ".y', "jw1.$(touch hacked).x", "jw1.`id`.x"]
)
async def test_what_is_no_token_goes_nowhere(world: World, script: Path, tmp_path: Path, token: str) -> None:
    env = os.environ | {"JETWAY_JOIN_TOKEN": token}
    status, said = await run(
        ["sh", str(script), "--dir", "d"], env=env, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert status == 1
    if " " not in token or '"' in token:
        assert "not a Jetway token" in said
    assert not (tmp_path / "hacked").exists()
    assert not (await world.call("GET", "/api/admin/events?type=redeem_refused")).json["items"]


async def test_a_folder_in_use_is_left_alone(world: World, script: Path, tmp_path: Path) -> None:
    token = (await world.create("poller", "site-a"))["token"]
    (tmp_path / "service.json").write_text("{}")
    env = os.environ | {"JETWAY_JOIN_TOKEN": token}
    status, said = await run(["sh", str(script), "--dir", str(tmp_path)], env=env, stdin=subprocess.DEVNULL)
    assert (status, "already holds a joined service" in said) == (1, True)
    assert (await world.redeem(token)).status == 200, "the token is not spent"


@pytest.mark.parametrize("arguments", [[], ["--dir"], ["--token", "jw1.x.y"], ["x"]])
async def test_wrong_usage(script: Path, arguments: list[str]) -> None:
    status, said = await run(["sh", str(script), *arguments], stdin=subprocess.DEVNULL)
    assert status == 2
    assert said.startswith("usage:")


async def test_nobody_listening_is_said(tmp_path: Path) -> None:
    script = tmp_path / "install.sh"
    script.write_bytes(installer("http://127.0.0.1:9"))
    env = os.environ | {"JETWAY_JOIN_TOKEN": "jw1.a.b"}
    status, said = await run(
        ["sh", str(script), "--dir", str(tmp_path / "d")], env=env, stdin=subprocess.DEVNULL
    )
    assert (status, "no answer from http://127.0.0.1:9" in said) == (1, True)


def test_the_address_cannot_run_in_the_shell(tmp_path: Path) -> None:
    url = "http://x/';touch${IFS}hacked;'$(touch${IFS}hacked)"
    script = installer(url).decode()
    assert f"gateway={shlex.quote(url)}" in script
    assert "@{" not in script
    subprocess.run(["sh", "-s"], input=script.encode(), cwd=tmp_path, capture_output=True, check=False)
    assert not (tmp_path / "hacked").exists()
