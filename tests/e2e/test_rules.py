"""Rules that an operator relies on, seen from outside; each is one that such a system breaks easily."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from nats.aio.client import Client

from support.daemon import PACKAGES, SERVICES, Daemon, eventually, fresh
from support.daemon_state import eventually_async, require_all_equal

NewDaemon = Callable[..., Daemon]


async def beat(client: Client, subject: str, **payload: Any) -> None:
    await client.publish(subject, json.dumps(payload).encode())
    await client.flush()


def onboard(daemon: Daemon, kind: str, service_id: str, parent_id: str = "", **fields: Any) -> str:
    """Create and redeem; the subject of its heartbeats."""
    token = daemon.create(kind, service_id, parent_id, **fields)["token"]
    answer = daemon.redeem(token)
    assert answer.status == 200, answer.body
    return str(answer.json["heartbeat"]["subject"])


def must_be(daemon: Daemon, kind: str, service_id: str, status: str) -> None:
    assert daemon.service(kind, service_id)["status"] == status


async def activate(daemon: Daemon, client: Client, subject: str) -> None:
    kind, service_id = subject.split(".")[2], subject.split(".")[-1]
    await beat(client, subject)
    eventually(lambda: must_be(daemon, kind, service_id, "active"))


def revoke(daemon: Daemon, kind: str, service_id: str, **body: Any) -> Any:
    package = daemon.service(kind, service_id)["package_id"]
    answer = daemon.call("POST", f"{PACKAGES}/{package}/revoke", body)
    assert answer.status == 200, answer.body
    return answer.json


def row(daemon: Daemon, kind: str, service_id: str) -> dict[str, Any]:
    found = daemon.rows(f"SELECT * FROM {kind}s WHERE {kind}_id = '{service_id}'")
    assert len(found) == 1
    return found[0]


def types(daemon: Daemon, kind: str, service_id: str) -> list[str]:
    """The history, oldest first."""
    events = daemon.get(f"{SERVICES}/{kind}s/{service_id}/events?limit=500")["items"]
    return [event["event_type"] for event in reversed(events)]


# --- revocation


async def test_a_revoked_poller_is_revoked_everywhere_and_never_heard_again(daemon: Daemon) -> None:
    poller = fresh("p")
    subject = onboard(daemon, "poller", poller)
    async with daemon.nats() as client:
        await activate(daemon, client, subject)
        revoke(daemon, "poller", poller, reason="stolen")
        before = daemon.metric("jetway_heartbeats_refused_total", reason="revoked")
        await beat(client, subject)

        def refused() -> None:
            assert daemon.metric("jetway_heartbeats_refused_total", reason="revoked") == before + 1

        eventually(refused)
        service = daemon.service("poller", poller)
        assert (service["status"], service["status_reason"]) == ("revoked", "stolen")
        eventually(lambda: _row_is(daemon, "poller", poller, "revoked"))
        documents = await client.jetstream(timeout=30).key_value("config")

        async def document_is_revoked() -> None:
            document = await documents.get(f"config/pollers/{poller}.json")
            assert json.loads(document.value or b"")["status"] == "revoked"

        await eventually_async(document_is_revoked)


def _row_is(daemon: Daemon, kind: str, service_id: str, status: str) -> None:
    assert row(daemon, kind, service_id)["status"] == status


async def test_children_do_not_survive_their_parents_revocation(daemon: Daemon) -> None:
    poller, agent, checker, other = fresh("p"), fresh("a"), fresh("c"), fresh("o")
    subjects = [
        onboard(daemon, "poller", poller),
        onboard(daemon, "agent", agent, poller),
        onboard(daemon, "checker", checker, agent),
        onboard(daemon, "poller", other),
    ]
    async with daemon.nats() as client:
        for subject in subjects:
            await activate(daemon, client, subject)
    preview = revoke(daemon, "poller", poller, dry_run=True)
    touched = {(s["service_type"], s["service_id"]) for s in preview["services"]}
    assert touched == {("poller", poller), ("agent", agent), ("checker", checker)}
    must_be(daemon, "checker", checker, "active")  # a preview changes nothing

    done = revoke(daemon, "poller", poller, reason="site closed")
    assert {(s["service_type"], s["service_id"]) for s in done["services"]} == touched
    for kind, service_id in touched:
        must_be(daemon, kind, service_id, "revoked")
    must_be(daemon, "poller", other, "active")


def test_revoking_an_agent_leaves_its_poller_alone(daemon: Daemon) -> None:
    poller, agent, sibling = fresh("p"), fresh("a"), fresh("a")
    daemon.create("poller", poller)
    daemon.create("agent", agent, poller)
    daemon.create("agent", sibling, poller)
    revoke(daemon, "agent", agent)
    must_be(daemon, "poller", poller, "pending")
    must_be(daemon, "agent", sibling, "pending")
    daemon.create("agent", fresh("a"), poller)


async def test_no_child_slips_in_while_its_parent_is_revoked(daemon: Daemon) -> None:
    headers = {"Authorization": f"Bearer {daemon.token}"}
    async with aiohttp.ClientSession(daemon.url, headers=headers) as session:

        async def until_refused(poller: str) -> int:
            """Create one agent after the other; the status that ended it."""
            while True:
                body = {"component_type": "agent", "label": fresh("a"), "parent_id": poller}
                async with session.post(PACKAGES, json=body) as response:
                    # A busy ledger may leave one without an answer in time.
                    if response.status not in (201, 503):
                        return response.status

        for _ in range(10):
            poller = fresh("p")
            daemon.create("poller", poller)
            creating = [asyncio.create_task(until_refused(poller)) for _ in range(10)]
            path = f"{SERVICES}/pollers/{poller}/status"
            async with session.post(path, json={"status": "revoked"}) as response:
                assert response.status == 200
            assert set(await asyncio.gather(*creating)) == {409}
            # Once all have their answers there is nothing left to be swept up later.
            agents = daemon.get(f"{SERVICES}/pollers/{poller}/agents?limit=500")["items"]
            assert {agent["status"] for agent in agents} <= {"revoked"}


# --- who may speak


@pytest.mark.parametrize(
    ("mode", "status"), [("allow", "active"), ("quarantine", "pending"), ("deny", None)], ids=lambda v: str(v)
)
async def test_an_unknown_id_does_not_admit_itself_unless_that_is_asked_for(
    new_daemon: NewDaemon, mode: str, status: str | None
) -> None:
    daemon = new_daemon(JETWAY_LIFECYCLE__IMPLICIT_REGISTRATION=mode)
    async with daemon.nats(inbox="_INBOX_agent_p1_a1") as client:
        answer = json.loads((await client.request("edge.heartbeat.agent.p1.a1", timeout=30)).data)
        if status is None:
            assert answer["refused"] == "unknown_service"
            assert daemon.get(f"{SERVICES}/tree")["total"] == 0
            return
        assert answer["status"] == status
        agent = daemon.service("agent", "a1")
        assert (agent["status"], agent["registration_source"]) == (status, "implicit")
        if mode == "quarantine":
            assert agent["approval"] == "required"
            assert daemon.get(f"{SERVICES}/stats")["awaiting_approval"] >= 1
            for kind, service_id in (("poller", "p1"), ("agent", "a1")):
                answer = daemon.call("POST", f"{SERVICES}/{kind}s/{service_id}/approve", {"reason": "ours"})
                assert answer.json["approval"] == "granted"
            again = json.loads((await client.request("edge.heartbeat.agent.p1.a1", timeout=30)).data)
            assert again["status"] == "active"


async def test_an_explicit_registration_improves_where_a_service_came_from(daemon: Daemon) -> None:
    poller = fresh("p")
    async with daemon.nats() as client:
        await beat(client, f"edge.heartbeat.poller.{poller}")
        eventually(lambda: must_be(daemon, "poller", poller, "pending"))
        answer = daemon.call(
            "POST", f"{SERVICES}/pollers", {"service_id": poller, "label": "Ours", "site": "A"}
        )
        assert answer.status == 201, answer.body
        await activate(daemon, client, f"edge.heartbeat.poller.{poller}")
    service = daemon.service("poller", poller)
    assert (service["registration_source"], service["label"], service["site"]) == ("config", "Ours", "A")


async def test_known_pollers_are_admitted_but_never_brought_back(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(
        JETWAY_LIFECYCLE__KNOWN_POLLERS='["core-1"]', JETWAY_LIFECYCLE__IMPLICIT_REGISTRATION="deny"
    )
    assert daemon.service("poller", "core-1")["registration_source"] == "config"
    async with daemon.nats() as client:
        await activate(daemon, client, "edge.heartbeat.poller.core-1")
    assert daemon.call("POST", f"{SERVICES}/pollers/core-1/status", {"status": "revoked"}).status == 200
    daemon.restart()
    must_be(daemon, "poller", "core-1", "revoked")


async def test_a_checker_beats_with_the_very_id_that_was_onboarded(daemon: Daemon) -> None:
    poller, agent, checker = fresh("p"), fresh("a"), fresh("c")
    onboard(daemon, "poller", poller)
    onboard(daemon, "agent", agent, poller)
    subject = onboard(daemon, "checker", checker, agent)
    assert subject == f"edge.heartbeat.checker.{poller}.{agent}.{checker}"
    async with daemon.nats() as client:
        await activate(daemon, client, subject)
    checkers = daemon.get(f"{SERVICES}/agents/{agent}/checkers")
    assert [item["service_id"] for item in checkers["items"]] == [checker]
    assert row(daemon, "checker", checker)["component_id"] == checker


# --- what heartbeats write


async def test_an_inactive_service_comes_back_with_its_heartbeat(daemon: Daemon) -> None:
    for kind, chain in (("poller", 1), ("agent", 2), ("checker", 3)):
        ids = [fresh("p"), fresh("a"), fresh("c")][:chain]
        for depth, each in enumerate(("poller", "agent", "checker")[:chain]):
            subject = onboard(daemon, each, ids[depth], ids[depth - 1] if depth else "")
        async with daemon.nats() as client:
            await activate(daemon, client, subject)
            path = f"{SERVICES}/{kind}s/{ids[-1]}/status"
            assert daemon.call("POST", path, {"status": "inactive", "reason": "maintenance"}).status == 200
            must_be(daemon, kind, ids[-1], "inactive")
            await activate(daemon, client, subject)

        def told(kind: str = kind, own: str = ids[-1]) -> None:
            assert types(daemon, kind, own)[-2:] == ["status_override", "reactivated"]

        eventually(told)


async def test_steady_heartbeats_write_nothing_to_the_ledger_and_keep_first_seen(daemon: Daemon) -> None:
    poller = fresh("p")
    subject = onboard(daemon, "poller", poller)
    assert daemon.service("poller", poller)["first_seen"] is None
    async with daemon.nats(inbox=f"_INBOX_poller_{poller}") as client:
        await client.request(subject, timeout=30)
        before = daemon.service("poller", poller)
        ledger = await client.jetstream(timeout=30).key_value("registry")
        written = (await ledger.get(f"poller.{poller}")).revision
        for _ in range(200):
            await client.publish(subject, b'{"healthy": true}')
        await client.request(subject, timeout=30)
        assert (await ledger.get(f"poller.{poller}")).revision == written
    after = daemon.service("poller", poller)
    assert (after["revision"], after["first_seen"]) == (before["revision"], before["first_seen"])
    assert after["last_seen"] > before["last_seen"]


async def test_a_parents_heartbeat_does_not_reset_its_counts_or_lose_changes(daemon: Daemon) -> None:
    poller = fresh("p")
    subject = onboard(daemon, "poller", poller)
    headers = {"Authorization": f"Bearer {daemon.token}"}
    async with daemon.nats() as client, aiohttp.ClientSession(daemon.url, headers=headers) as session:

        async def create(number: int) -> int:
            body = {"component_type": "agent", "label": f"{poller} {number}", "parent_id": poller}
            async with session.post(PACKAGES, json=body) as response:
                await beat(client, subject)
                return response.status

        assert set(await asyncio.gather(*(create(number) for number in range(25)))) == {201}
        await eventually_async(lambda: require_all_equal(daemon, client))
    assert daemon.service("poller", poller)["agent_count"] == 25
    assert row(daemon, "poller", poller)["agent_count"] == 25


async def test_last_seen_reaches_the_row_in_batches_and_never_over_a_newer_status(
    new_daemon: NewDaemon,
) -> None:
    daemon = new_daemon(JETWAY_HEARTBEAT__FLUSH_INTERVAL="1s")
    subject = onboard(daemon, "poller", "site-a")
    async with daemon.nats() as client:
        await activate(daemon, client, subject)
        first = daemon.service("poller", "site-a")["last_seen"]
        await beat(client, subject, version="2.0")

        def flushed() -> None:
            found = row(daemon, "poller", "site-a")
            assert found["version"] == "2.0"
            assert found["last_seen"] > first

        def heard() -> None:
            assert daemon.service("poller", "site-a")["version"] == "3.0"

        eventually(flushed)
        await beat(client, subject, version="3.0")
        eventually(heard)
        revoke(daemon, "poller", "site-a")

        def both() -> None:
            found = row(daemon, "poller", "site-a")
            assert (found["version"], found["status"]) == ("3.0", "revoked")

        eventually(both)
        await eventually_async(lambda: require_all_equal(daemon, client))


async def test_a_service_that_falls_silent_is_late_then_offline_and_one_that_says_goodbye_at_once(
    new_daemon: NewDaemon,
) -> None:
    daemon = new_daemon(JETWAY_HEARTBEAT__OFFLINE_AFTER="8")  # late for so long that nobody misses it
    subject = onboard(daemon, "poller", "site-a", heartbeat_interval_seconds=1)
    leaving = onboard(daemon, "poller", "site-b", heartbeat_interval_seconds=1)
    assert daemon.service("poller", "site-a")["liveness"] == "never"
    seen: list[str] = []

    def offline() -> None:
        liveness = daemon.service("poller", "site-a")["liveness"]
        if liveness not in seen:
            seen.append(liveness)
        assert liveness == "offline"

    async with daemon.nats() as client:
        await activate(daemon, client, leaving)
        await beat(client, leaving, stopping=True)

        def left() -> None:
            assert daemon.service("poller", "site-b")["liveness"] == "offline"

        eventually(left)
        await activate(daemon, client, subject)
    eventually(offline, 60)
    assert seen in (["online", "late", "offline"], ["late", "offline"])
    must_be(daemon, "poller", "site-a", "active")  # a status is a decision, liveness an observation


# --- packages, lists, history


def test_a_package_whose_token_ran_out_becomes_expired(forgetful: Daemon) -> None:
    poller = fresh("p")
    package_id = forgetful.create("poller", poller)["package"]["package_id"]

    def expired() -> None:
        assert forgetful.package(package_id)["status"] == "expired"
        assert forgetful.rows(f"SELECT status FROM edge_packages WHERE package_id = '{package_id}'") == [
            {"status": "expired"}
        ]
        events = forgetful.get(f"{PACKAGES}/{package_id}/events")["items"]
        assert "expired" in [event["event_type"] for event in events]

    eventually(expired, 60)
    must_be(forgetful, "poller", poller, "pending")
    listed = forgetful.get(f"{PACKAGES}?status=expired&q={poller}")["items"]
    assert [item["package_id"] for item in listed] == [package_id]
    assert forgetful.call("DELETE", f"{PACKAGES}/{package_id}").status == 204


def test_filters_apply_before_the_limit_and_pages_show_each_item_once(daemon: Daemon) -> None:
    poller = fresh("p")
    daemon.create("poller", poller)
    agents = [fresh("a") for _ in range(30)]
    for agent in agents:
        daemon.create("agent", agent, poller)
    for agent in agents[20:]:
        revoke(daemon, "agent", agent)
    for path, name in (
        (f"{SERVICES}/agents?parent_id={poller}&status=revoked", "service_id"),
        (f"{SERVICES}/pollers/{poller}/agents?status=revoked", "service_id"),
        (f"{PACKAGES}?parent_id={poller}&status=revoked", "component_id"),
    ):
        found, cursor = [], ""
        while cursor is not None:
            page = daemon.get(f"{path}&limit=3" + (f"&cursor={cursor}" if cursor else ""))
            assert page["total"] == 10
            assert len(page["items"]) == 3 or page["next_cursor"] is None
            found += [item[name] for item in page["items"]]
            cursor = page["next_cursor"]
        assert sorted(found) == sorted(agents[20:])


def test_an_override_needs_a_lawful_way_and_leaves_who_and_why(daemon: Daemon) -> None:
    poller = fresh("p")
    daemon.redeem(daemon.create("poller", poller)["token"])
    token = daemon.call("POST", "/api/admin/api-tokens", {"name": fresh("ann"), "role": "operator"}).json
    path = f"{SERVICES}/pollers/{poller}/status"
    body = {"status": "active", "reason": "seen it myself"}
    assert daemon.call("POST", path, body, token=token["token"]).status == 200
    assert daemon.call("POST", path, {"status": "pending"}).status == 409

    def told() -> None:
        events = daemon.get(f"{SERVICES}/pollers/{poller}/events?type=status_override")["items"]
        assert [(event["actor"], event["reason"]) for event in events] == [(token["name"], "seen it myself")]
        assert (events[0]["from_status"], events[0]["to_status"]) == ("pending", "active")

    eventually(told)


def test_a_history_outlives_its_service_and_its_package(daemon: Daemon) -> None:
    poller = fresh("p")
    package = daemon.create("poller", poller)["package"]["package_id"]
    revoke(daemon, "poller", poller, reason="stolen")
    assert daemon.call("DELETE", f"{SERVICES}/pollers/{poller}").status == 204
    assert daemon.call("DELETE", f"{PACKAGES}/{package}").status == 204
    assert daemon.call("GET", f"{PACKAGES}/{package}").status == 404

    def told() -> None:
        found = types(daemon, "poller", poller)
        assert found[:2] == ["registered", "issued"]
        assert {"revoked", "deleted", "package_deleted"} <= set(found)
        assert daemon.get(f"{PACKAGES}/{package}/events")["total"] >= 3

    eventually(told)


async def test_a_document_follows_every_change_and_a_hand_edited_config_is_kept(daemon: Daemon) -> None:
    poller, agent, checker = fresh("p"), fresh("a"), fresh("c")
    daemon.create("poller", poller)
    daemon.create("agent", agent, poller)
    subject = onboard(daemon, "checker", checker, agent)
    key = f"config/agents/{agent}/checkers/{checker}.json"
    async with daemon.nats() as client:
        bucket = await client.jetstream(timeout=30).key_value("config")
        assert (await bucket.status()).ttl in (None, 0)  # documents do not vanish with age
        document = json.loads((await bucket.get(key)).value or b"")
        document["checker_config"] = {"targets": ["198.51.100.99"]}
        document["label"] = "not what it is called"
        await bucket.put(key, json.dumps(document).encode())
        await activate(daemon, client, subject)

        async def followed() -> None:
            found = json.loads((await bucket.get(key)).value or b"")
            assert found["status"] == "active"
            assert found["label"] == checker
            assert found["checker_config"] == {"targets": ["198.51.100.99"]}

        await eventually_async(followed)


# --- secrets


async def test_no_token_reaches_a_url_a_log_a_table_or_the_ledger(daemon: Daemon) -> None:
    poller = fresh("p")
    created = daemon.create("poller", poller)
    api_token = daemon.call("POST", "/api/admin/api-tokens", {"name": fresh("t"), "role": "viewer"}).json[
        "token"
    ]
    secrets = {created["token"], created["token"].split(".")[2], api_token, daemon.token}
    secrets.add(json.loads(_decoded(created["token"].split(".")[1]))["secret"])
    daemon.redeem(created["token"])
    daemon.redeem(created["token"])
    daemon.redeem(created["token"][:-4] + "AAAA")
    daemon.call("GET", f"{SERVICES}/tree?token={created['token']}", token=api_token)
    daemon.call("GET", f"/{created['token']}")
    daemon.call("GET", f"{SERVICES}/pollers/{created['token']}")
    assert not any(secret in json.dumps(created["install"]) for secret in secrets)
    shown = daemon.call("GET", f"{PACKAGES}/{created['package']['package_id']}").body.decode()
    stored = json.dumps([daemon.rows("SELECT * FROM edge_packages"), daemon.rows("SELECT * FROM pollers")])
    trail = json.dumps(daemon.rows("SELECT * FROM service_registration_events"))
    log = daemon.log_text()
    assert not [secret for secret in secrets if secret in shown + stored + trail + log]
    kept = list((daemon.state / "nats").rglob("*.blk"))
    assert kept
    for path in kept:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_forwarded_for_header_is_not_believed(daemon: Daemon) -> None:
    token = daemon.create("poller", fresh("p"))["token"]
    body = {"token": token, "host": {"hostname": "edge-1"}}
    headers = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    assert daemon.call("POST", "/api/edge/redeem", body, token="", headers=headers).status == 200
    listed = daemon.get(f"{PACKAGES}?limit=1")["items"][0]
    assert listed["delivered_to"] == "edge-1 (127.0.0.1)"


def test_details_and_metrics_are_not_for_what_a_proxy_passes_on(daemon: Daemon) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9"}
    assert daemon.call("GET", "/metrics", token="", headers=headers).status == 401
    assert "components" not in daemon.call("GET", "/readyz", token="", headers=headers).json
    assert "components" in daemon.call("GET", "/readyz", token="").json
    assert daemon.call("GET", "/metrics", headers=headers).status == 200


def test_a_token_that_is_revoked_is_out_at_once(daemon: Daemon) -> None:
    name = fresh("t")
    token = daemon.call("POST", "/api/admin/api-tokens", {"name": name, "role": "viewer"}).json["token"]
    assert daemon.call("GET", f"{SERVICES}/tree", token=token).status == 200
    assert daemon.call("DELETE", f"/api/admin/api-tokens/{name}").status == 204
    assert daemon.call("GET", f"{SERVICES}/tree", token=token).status == 401


def test_what_was_migrated_once_keeps_its_rows_over_a_restart(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    daemon.require_written(daemon.create("poller", "site-a"))
    before = daemon.rows("SELECT * FROM pollers")
    daemon.restart()
    assert daemon.rows("SELECT * FROM pollers") == before
    assert daemon.get(f"{SERVICES}/pollers")["total"] == 1
