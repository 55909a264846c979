"""The onboarding form suggests what is in use, and the page after it has commands that are true."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest

from jetway.core.ids import ServiceKey, ServiceType
from jetway.entry.web.install_ways import DOCKERFILE, is_plain, ways
from jetway.entry.web.onboard_form import read_form
from support.browsing import Browser, browsing
from support.http_world import World, http_world

ROOT = Path(__file__).resolve().parents[2]
FORM = "/ui/onboard"
PINNED = "sha256:" + "A" * 43


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with http_world(tmp_path) as world:
        await world.create("poller", "p1", site="North", labels={"rack": "12", "room": "b"})
        await world.create("poller", "p2", site="North", labels={"rack": "12"})
        await world.create("poller", "p3", site="South", labels={"rack": "<b>"})
        yield world


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    async with browsing(world) as browser:
        await browser.sign_in("operator")
        yield browser


async def test_sites_and_labels_in_use_are_suggested_the_most_frequent_first(browser: Browser) -> None:
    body = (await browser.get(FORM)).body.decode()
    assert body.index('<option value="North">') < body.index('<option value="South">')
    assert body.index('<option value="rack=12">') < body.index('<option value="room=b">')
    assert '<option value="rack=&lt;b&gt;">' in body
    assert (await browser.get(FORM + "/sites?q=sou")).json == ["South"]
    assert (await browser.get(FORM + "/labels?q=rack=1")).json == ["rack=12"]
    assert (await browser.get(FORM + "/labels?q=oo")).json == ["room=b"]


async def test_labels_come_from_every_field_and_a_wrong_one_is_named(browser: Browser) -> None:
    form = {"csrf": await browser.csrf(FORM), "component_type": "poller", "label": "P4", "component_id": "p4"}
    labels = {"labels.1": "rack=12", "labels.3": " room = c ", "labels": "floor=2\r\nrow=b"}
    wrong = await browser.post(FORM, form | labels | {"labels.2": "no pair"})
    assert wrong.status == 422 and b"Must be key=value" in wrong.body and b'value="rack=12"' in wrong.body
    assert (await browser.post(FORM, form | labels)).status == 303
    record = browser.world.ledger.index.get(ServiceKey(ServiceType.POLLER, "p4"))
    assert record and record.labels == {"rack": "12", "room": "c", "floor": "2", "row": "b"}


def test_an_answer_that_reads_as_a_placeholder_is_named_beside_what_else_is_wrong() -> None:
    form = {"label": "Uplink", "checker_kind": "icmp", "config.hosts": "${HOST}", "labels": "no pair"}
    values, wrong = read_form(form, {"type": "icmp", "hosts": ["192.0.2.1"]})
    assert values["label"] == "Uplink"
    assert wrong.keys() == {"checker_kind", "labels"}
    assert "unknown placeholder 'HOST'" in wrong["checker_kind"]


async def test_metadata_has_fields_of_its_type(browser: Browser) -> None:
    assert b'name="metadata.spire_upstream_address"' in (await browser.get(FORM + "?type=poller")).body
    assert b'name="metadata.agent_address"' in (await browser.get(FORM + "?type=agent")).body
    form = {"csrf": await browser.csrf(FORM), "component_type": "poller", "label": "P4", "component_id": "p4"}
    given = {
        "metadata.core_address": " core:50052 ",
        "metadata.agent_spiffe_id": "",
        "metadata": "owner=netops",
    }
    assert (await browser.post(FORM, form | given)).status == 303
    record = browser.world.ledger.index.get(ServiceKey(ServiceType.POLLER, "p4"))
    assert record and record.metadata == {"core_address": "core:50052", "owner": "netops"}


async def test_every_way_of_joining_is_shown_without_the_token(browser: Browser) -> None:
    form = {"csrf": await browser.csrf(FORM), "component_type": "poller", "label": "P4", "component_id": "p4"}
    answer = await browser.post(FORM, form)
    body = (await browser.get(answer.headers["Location"])).body.decode()
    shown = [unescape(text) for text in re.findall(r'<pre id="cmd-[^>]*>(.*?)</pre>', body, re.DOTALL)]
    assert shown == [step.command for way in ways(browser.world.server.url, "p4") for step in way.steps]
    assert "jw1." in body and not any("jw1." in command for command in shown)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://gateway.example:8443"])
@pytest.mark.parametrize("pin", ["", PINNED])
def test_every_command_is_good_shell(url: str, pin: str) -> None:
    for way in ways(url, "core-switch-room", pin):
        for step in way.steps:
            done = subprocess.run(
                ["sh", "-n"], input=step.command, text=True, capture_output=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, ""), step.command


def test_a_container_finds_a_gateway_on_this_machine() -> None:
    def docker(url: str) -> list[str]:
        [way] = [way for way in ways(url, "p1") if way.name == "docker"]
        return [step.command for step in way.steps if "docker run" in step.command]

    assert all("--network host" in command for command in docker("http://127.0.0.1:8080"))
    assert not any("--network" in command for command in docker("https://gateway.example"))


@pytest.mark.parametrize(
    ("url", "plain"),
    [("http://gateway.example", True), ("https://gateway.example", False), ("http://[::1]:8080", False)],
)
def test_plain_http_is_warned_of(url: str, plain: bool) -> None:
    assert is_plain(url) is plain


def test_the_documentation_has_the_same_image_and_units() -> None:
    assert DOCKERFILE in (ROOT / "docs" / "edge.md").read_text()
    [systemd] = [way for way in ways("https://gateway.example", "p1") if way.name == "systemd"]
    for name in re.findall(r"install -m 644 (\S+)", systemd.steps[0].command):
        assert (ROOT / "systemd" / name).is_file()
    unit = (ROOT / "systemd" / "jetway-edge@.service").read_text()
    assert "ExecStart=/opt/jetway/bin/jetway run --dir /etc/jetway-edge/%i" in unit
