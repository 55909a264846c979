"""Webhooks against a real receiver: what is signed, what is refused, and where nothing may be sent."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.resolver import ThreadedResolver
from aiohttp.test_utils import TestServer

from jetway.adapters.clock import SystemClock
from jetway.adapters.webhooks import Webhook, is_public, open_webhooks
from jetway.core.errors import RejectedError, StartupError, UnavailableError
from jetway.settings import load_settings
from support.daemon import jetway
from support.ports import free_port

SECRET = b"0123456789abcdef"


class Receiver:
    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def url(receiver: Receiver) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/hook?key=hidden"))


def webhook(url: str, *, allow_private: bool = True) -> Webhook:
    return Webhook(url, SECRET, SystemClock(), allow_private=allow_private)


async def test_an_alert_is_signed_over_its_time_and_body(receiver: Receiver, url: str) -> None:
    await webhook(url).send("id-1", "offline", b'{"kind":"offline"}')
    [(headers, body)] = receiver.got
    signed = headers["Jetway-Timestamp"].encode() + b"." + body
    expected = hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    assert headers["Jetway-Signature"] == f"sha256={expected}"
    assert (headers["Jetway-Event"], headers["Jetway-Delivery"]) == ("offline", "id-1")
    assert body == b'{"kind":"offline"}'


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, UnavailableError),
        (503, UnavailableError),
        (429, UnavailableError),
        (400, RejectedError),
        (404, RejectedError),
    ],
)
async def test_an_answer_says_whether_to_try_again(
    receiver: Receiver, url: str, status: int, error: type[Exception]
) -> None:
    receiver.status = status
    with pytest.raises(error, match=str(status)):
        await webhook(url).send("id-1", "offline", b"{}")


async def test_no_redirect_is_followed(receiver: Receiver, url: str) -> None:
    receiver.status, receiver.headers = 307, {"Location": url}
    with pytest.raises(RejectedError, match="307"):
        await webhook(url).send("id-1", "offline", b"{}")
    assert len(receiver.got) == 1


async def test_nobody_there_is_no_secret_told(url: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        await webhook(f"http://127.0.0.1:{free_port()}/hook?key=hidden").send("id-1", "offline", b"{}")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_this_machine_is_not_reached_unless_it_is_allowed(
    receiver: Receiver, url: str, host: str
) -> None:
    with pytest.raises(RejectedError, match="allow_private"):
        await webhook(url.replace("127.0.0.1", host), allow_private=False).send("id-1", "offline", b"{}")
    assert not receiver.got


@pytest.mark.parametrize(
    ("allowed", "taken"),
    [
        (["127.0.0.0/8"], True),
        (["10.0.0.0/8", "127.0.0.1"], True),
        (["10.0.0.0/8", "::1"], False),
        ([], False),
    ],
)
async def test_private_networks_may_be_listed(
    receiver: Receiver, url: str, tmp_path: Path, allowed: list[str], taken: bool
) -> None:
    secret, file = tmp_path / "secret", tmp_path / "jetway.toml"
    secret.write_bytes(SECRET)
    given = url.replace("http://", "https://")
    file.write_text(
        f'[[alerts.webhooks]]\nurl = "{given}"\nsecret_file = "{secret}"\nallow_private = {json.dumps(allowed)}\n'
    )
    [settings] = load_settings(file).alerts.webhooks
    hook = Webhook(url, SECRET, SystemClock(), allow_private=settings.allow_private)
    if taken:
        await hook.send("id-1", "offline", b"{}")
    else:
        with pytest.raises(RejectedError, match="allow_private"):
            await hook.send("id-1", "offline", b"{}")
    assert len(receiver.got) == taken


@pytest.mark.parametrize("host", ["a..b", "a" * 64, ".example", "xn--" + "a" * 80])
async def test_a_host_that_nothing_can_look_up_is_refused_and_ends_nothing(host: str) -> None:
    with pytest.raises((RejectedError, UnavailableError)):
        await webhook(f"http://{host}/").send("id-1", "offline", b"{}")


async def test_a_name_that_points_home_is_refused_where_it_is_connected(
    receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is checked is what the resolver says for this very connection: no second look can differ."""

    async def home(
        self: ThreadedResolver, host: str, port: int, family: socket.AddressFamily
    ) -> list[object]:
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", home)
    harmless = url.replace("127.0.0.1", "harmless.example")
    with pytest.raises(RejectedError, match=r"127\.0\.0\.1"):
        await webhook(harmless, allow_private=False).send("id-1", "offline", b"{}")
    assert not receiver.got
    await webhook(harmless).send("id-2", "offline", b"{}")
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"),
        *("100.64.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "2002:0a00:0001::", "fec0::1", "feff::1%eth0"),
    ],
)
def test_addresses_that_are_not_of_the_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('url = "http://alerts.example/"\nsecret_file = "s"', "allow_private"),
        ('url = "ftp://alerts.example/"\nsecret_file = "s"', "https://"),
        ('url = "https://alerts..example/"\nsecret_file = "s"', r"alerts\.webhooks\.0\.url: .*no name"),
        (f'url = "https://{"a" * 64}.example/"\nsecret_file = "s"', r"alerts\.webhooks\.0\.url: .*no name"),
        ('url = "http://alerts.example/"\nsecret_file = "s"\nallow_private = []', "allow_private"),
        (
            'url = "https://alerts.example/"\nsecret_file = "s"\nallow_private = ["10.0.0.1/8"]',
            r"alerts\.webhooks\.0\.allow_private: .*a network",
        ),
        (
            'url = "https://alerts.example/"\nsecret_file = "s"\nallow_private = "yes"',
            r"alerts\.webhooks\.0\.allow_private: .*a list of the networks",
        ),
        ('url = "https://alerts.example/"', "secret_file"),
        ('url = "https://alerts.example/"\nsecret_file = "s"\nevents = ["nap"]', "events"),
        ('url = "https://alerts.example/"\nsecret_file = "s"\nredirects = true', "redirects"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "jetway.toml"
    file.write_text(f"[[alerts.webhooks]]\n{text}\n")
    with pytest.raises(StartupError, match=word):
        load_settings(file)


def test_a_secret_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    secret, file = tmp_path / "secret", tmp_path / "jetway.toml"
    file.write_text(f'[[alerts.webhooks]]\nurl = "https://alerts.example/"\nsecret_file = "{secret}"\n')
    settings = load_settings(file).alerts
    with pytest.raises(StartupError, match=r"alerts\.webhooks\.secret_file"):
        open_webhooks(settings, SystemClock())
    secret.write_text("short\n")
    with pytest.raises(StartupError, match="16 characters"):
        open_webhooks(settings, SystemClock())


async def test_the_command_tries_every_webhook(receiver: Receiver, url: str, tmp_path: Path) -> None:
    secret, file = tmp_path / "secret", tmp_path / "jetway.toml"
    secret.write_bytes(SECRET)
    block = f'[[alerts.webhooks]]\nurl = "{url}"\nsecret_file = "{secret}"\nallow_private = true\n'
    file.write_text(block)
    done = await asyncio.to_thread(jetway, "alerts", "test", "--config", str(file))
    assert (done.returncode, done.stdout) == (0, "127.0.0.1: taken\n"), done.stderr
    [(headers, body)] = receiver.got
    assert (headers["Jetway-Event"], json.loads(body)["kind"]) == ("test", "test")

    receiver.status = 404
    done = await asyncio.to_thread(jetway, "alerts", "test", "--config", str(file))
    assert done.returncode == 1
    assert "answered 404" in done.stdout
    shown = await asyncio.to_thread(jetway, "check-config", "--config", str(file))
    assert "webhooks = [" in shown.stdout
    assert "key=hidden" not in shown.stdout
