"""What an edge host can do at a real server that asks for credentials: exactly what is listed here, no more.

The lists are written out by hand, not computed from the grants that they check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from jetway.adapters.authority import nats_accounts
from jetway.adapters.authority.nats_users import GivenSigner, NatsUsers
from jetway.core import grants
from jetway.core.errors import RefusedError
from jetway.core.grants import Grant, GrantNames
from jetway.core.ids import Lineage, ServiceType
from support.secured_nats import Host, SecuredNats, secured_nats

POLLER = Lineage(ServiceType.POLLER, "p1")
AGENT = Lineage(ServiceType.AGENT, "p1", "a1")
CHECKER = Lineage(ServiceType.CHECKER, "p1", "a1", "c1")
WHO = {"poller": POLLER, "agent": AGENT, "checker": CHECKER}

GET = "$JS.API.DIRECT.GET.KV_config_watch.$KV.config_watch."
CREATE = "$JS.API.CONSUMER.CREATE.KV_config_watch.mine.$KV.config_watch."
DOCUMENTS = (
    "config.pollers.p1",
    "config.pollers.p2",
    "config.pollers.p1.agents.a1",
    "config.pollers.p1.agents.a2",
    "config.pollers.p2.agents.a1",
    "config.pollers.p2.agents.a3",
    "config.agents.a1.checkers.c1",
    "config.agents.a1.checkers.c2",
    "config.agents.a2.checkers.c1",
)
HEARTBEATS = (
    "edge.heartbeat.poller.p1",
    "edge.heartbeat.poller.p2",
    "edge.heartbeat.agent.p1.a1",
    "edge.heartbeat.agent.p1.a2",
    "edge.heartbeat.agent.p2.a1",
    "edge.heartbeat.checker.p1.a1.c1",
    "edge.heartbeat.checker.p1.a1.c2",
    "edge.heartbeat.checker.p1.a2.c1",
    "edge.heartbeat.checker.p2.a1.c1",
    "edge.heartbeat.batch.p1",
    "edge.heartbeat.batch.p2",
    "edge.heartbeat.relay",
    "edge.heartbeat.echo",
    "edge.heartbeat",
    "edge.heartbeat.poller.p1.x",
    "edge.heartbeat.poller",
)
RENEWALS = (
    "jetway.renew.poller.p1",
    "jetway.renew.poller.p2",
    "jetway.renew.agent.p1.a1",
    "jetway.renew.agent.p1.a2",
    "jetway.renew.agent.p2.a1",
    "jetway.renew.checker.p1.a1.c1",
    "jetway.renew.checker.p1.a1.c2",
    "jetway.renew.checker.p1.a2.c1",
    "jetway.renew",
    "jetway.known",
)
BUCKETS = ("registry", "config", "config_watch", "api_tokens", "idempotency", "jetway")
STREAMS = (*(f"KV_{bucket}" for bucket in BUCKETS), "REGISTRY_EVENTS", "REGISTRY_AUDIT")
PUBLISHED = (
    *HEARTBEATS,
    *RENEWALS,
    *(GET + key for key in DOCUMENTS),
    *(CREATE + key for key in DOCUMENTS),
    *(f"$KV.config_watch.{key}" for key in DOCUMENTS),
    *(f"$KV.config_watch.{key}".replace("config_watch", "config") for key in DOCUMENTS),
    *(f"edge.config.{key.removeprefix('config.')}" for key in DOCUMENTS),
    *(f"$KV.{bucket}.x" for bucket in BUCKETS),
    "$KV.registry.poller.p1",
    "$KV.registry.agent.a1",
    "$KV.config.config/pollers/p1.json",
    *(
        f"$JS.API.{endpoint}.{stream}"
        for stream in STREAMS
        for endpoint in (
            *("STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.DELETE", "STREAM.PURGE"),
            *("STREAM.MSG.GET", "STREAM.MSG.DELETE", "STREAM.SNAPSHOT", "STREAM.RESTORE"),
            *("DIRECT.GET", "CONSUMER.CREATE", "CONSUMER.NAMES", "CONSUMER.LIST"),
            *("CONSUMER.CREATE.KV_config_watch", "CONSUMER.DURABLE.CREATE"),
        )
    ),
    *(
        f"$JS.API.CONSUMER.{endpoint}.{stream}.documents"
        for stream in STREAMS
        for endpoint in ("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "MSG.NEXT", "PAUSE", "RESET")
    ),
    f"{GET}>",
    f"{GET}config.>",
    f"{GET}config.pollers.*",
    f"{GET}config.pollers.*.agents.a1",
    "$JS.API.DIRECT.GET.KV_config.$KV.config.config/pollers/p1.json",
    "$JS.API.DIRECT.GET.KV_registry.$KV.registry.poller.p1",
    "$JS.API.DIRECT.GET.KV_api_tokens.$KV.api_tokens.admin",
    "$JS.API.DIRECT.GET.KV_registry",
    "$JS.API.DIRECT.GET.KV_config_watch",
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.SERVER.INFO",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.ACK.KV_registry.documents.1.1.1.1.0",
    "$JS.FC.KV_config_watch.x",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.CLAIMS.DELETE",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SRV.PING",
    "jetway.known",
    "jetway.get",
    "jetway.stats",
    "registry.audit.x",
    "registry.events.agent.a1",
    "_INBOX.x",
    "_INBOX_poller_p1.x",
    "_INBOX_agent_p1_a1.x",
    "_INBOX_checker_p1_a1_c1.x",
    "_INBOX_agent_p1_a2.x",
    "_R_.x.y",
    "anything",
)
SUBSCRIBED = (
    *HEARTBEATS,
    *RENEWALS,
    *(f"edge.config.{key.removeprefix('config.')}" for key in DOCUMENTS),
    *(f"$KV.config_watch.{key}" for key in DOCUMENTS),
    *(GET + key for key in DOCUMENTS),
    *(f"$KV.{bucket}.>" for bucket in BUCKETS),
    *(">", "*", "*.>", "*.*", "$KV.>", "$JS.>", "$JS.API.>", "$SYS.>", "$SRV.>", "_R_.>"),
    *("edge.>", "edge.*.>", "edge.heartbeat.>", "edge.heartbeat.poller.*", "edge.heartbeat.batch.*"),
    *("edge.config.>", "edge.config.pollers.>", "edge.config.pollers.*", "edge.config.pollers.*.agents.*"),
    *("edge.config.pollers.p1.agents.*", "edge.config.pollers.p2.agents.*", "edge.config.pollers.p1.>"),
    *("edge.config.agents.a1.checkers.*", "edge.config.agents.a2.checkers.*", "edge.config.agents.>"),
    *("registry.>", "registry.audit.>", "registry.events.>", "jetway.>", "jetway.renew.>", "jetway.known"),
    *("_INBOX.>", "_INBOX.*", "_INBOX_poller_p1", "_INBOX_poller_p1.>", "_INBOX_poller_p1.x.y"),
    *("_INBOX_poller_p2.>", "_INBOX_agent_p1_a1.>", "_INBOX_agent_p1_a1.x", "_INBOX_agent_p1_a2.>"),
    *("_INBOX_agent_p2_a1.>", "_INBOX_checker_p1_a1_c1.>", "_INBOX_checker_p1_a1_c2.>", "*.x"),
)
MAY_PUBLISH = {
    "poller": {
        "edge.heartbeat.poller.p1",
        "edge.heartbeat.batch.p1",
        "jetway.renew.poller.p1",
        f"{GET}config.pollers.p1",
        f"{GET}config.pollers.p1.agents.a1",
        f"{GET}config.pollers.p1.agents.a2",
    },
    "agent": {
        "edge.heartbeat.agent.p1.a1",
        "jetway.renew.agent.p1.a1",
        f"{GET}config.pollers.p1.agents.a1",
        f"{GET}config.agents.a1.checkers.c1",
        f"{GET}config.agents.a1.checkers.c2",
    },
    "checker": {
        "edge.heartbeat.checker.p1.a1.c1",
        "jetway.renew.checker.p1.a1.c1",
        f"{GET}config.agents.a1.checkers.c1",
    },
}
MAY_SUBSCRIBE = {
    "poller": {
        "edge.config.pollers.p1",
        "edge.config.pollers.p1.agents.a1",
        "edge.config.pollers.p1.agents.a2",
        "edge.config.pollers.p1.agents.*",
        "_INBOX_poller_p1.>",
        "_INBOX_poller_p1.x.y",
    },
    "agent": {
        "edge.config.pollers.p1.agents.a1",
        "edge.config.agents.a1.checkers.c1",
        "edge.config.agents.a1.checkers.c2",
        "edge.config.agents.a1.checkers.*",
        "_INBOX_agent_p1_a1.>",
        "_INBOX_agent_p1_a1.x",
    },
    "checker": {"edge.config.agents.a1.checkers.c1", "_INBOX_checker_p1_a1_c1.>"},
}
WATCHED = {
    "poller": ("config.pollers.p1", "config.pollers.p1.agents.a1", "config.pollers.p1.agents.a2"),
    "agent": ("config.pollers.p1.agents.a1", "config.agents.a1.checkers.c1", "config.agents.a1.checkers.c2"),
    "checker": ("config.agents.a1.checkers.c1",),
}


async def differences(secured: SecuredNats, name: str, *, watch: bool = False) -> set[str]:
    """What such a host can do and should not (+), or should and cannot (-)."""
    host = await secured.host(WHO[name], watch=watch)
    may_publish = MAY_PUBLISH[name] | ({CREATE + key for key in WATCHED[name]} if watch else set())
    for subject in PUBLISHED:
        await host.publish(subject)
    for subject in SUBSCRIBED:
        await host.subscribe(subject)
    denied = await host.denied()
    published = {subject for subject in PUBLISHED if subject.lower() not in denied["publish"]}
    subscribed = {subject for subject in SUBSCRIBED if subject.lower() not in denied["subscription"]}
    return {
        *(f"+publish {subject}" for subject in published - may_publish),
        *(f"-publish {subject}" for subject in may_publish - published),
        *(f"+subscribe {subject}" for subject in subscribed - MAY_SUBSCRIBE[name]),
        *(f"-subscribe {subject}" for subject in MAY_SUBSCRIBE[name] - subscribed),
    }


@pytest.mark.parametrize("name", WHO)
async def test_a_host_can_do_exactly_what_is_listed(tmp_path: Path, name: str) -> None:
    async with secured_nats(tmp_path) as secured:
        assert await differences(secured, name) == set()


@pytest.mark.parametrize("watch", [False, True], ids=["plain", "watch"])
@pytest.mark.parametrize("name", WHO)
async def test_credentials_by_a_given_key_allow_exactly_the_same(
    tmp_path: Path, name: str, watch: bool
) -> None:
    """Somebody else's account: its key has no scope, so the JWT itself says what is allowed."""
    async with secured_nats(tmp_path) as secured:
        edge = secured.keys.edge
        secured.users = NatsUsers(GivenSigner(edge, edge.public, GrantNames()))
        assert await differences(secured, name, watch=watch) == set()


async def test_the_embedded_server_has_no_consumers_for_edge_hosts(tmp_path: Path) -> None:
    secured = SecuredNats(tmp_path)
    with pytest.raises(RefusedError) as caught:
        secured.write_creds(AGENT, watch=True)
    assert caught.value.refused.field == "watch"


def more(*, publish: str = "", subscribe: str = "") -> Callable[[Grant], Grant]:
    extra = Grant((publish,) if publish else (), (subscribe,) if subscribe else ())
    return lambda grant: Grant((*grant.publish, *extra.publish), (*grant.subscribe, *extra.subscribe))


WIDENED = {
    "any heartbeat": more(publish="edge.heartbeat.>"),
    "the relay": more(publish="edge.heartbeat.relay"),
    "a sibling's heartbeat": more(publish="edge.heartbeat.agent.{{tag(poller)}}.*"),
    "any document": more(publish=f"{GET}config.pollers.*"),
    "the whole stream": more(publish="$JS.API.DIRECT.GET.KV_config_watch"),
    "key-value puts": more(publish="$KV.>"),
    "one bucket": more(publish="$KV.config.*"),
    "stream info": more(publish="$JS.API.STREAM.INFO.*"),
    "consumers": more(publish="$JS.API.CONSUMER.CREATE.>"),
    "the system": more(publish="$SYS.>"),
    "another's renewal": more(publish="jetway.renew.>"),
    "trusted questions": more(publish="jetway.known"),
    "any inbox": more(subscribe="_INBOX.>"),
    "another's inbox": more(subscribe="_INBOX_agent_p1_a2.>"),
    "any change": more(subscribe="edge.config.>"),
    "everything": more(subscribe=">"),
    "others' heartbeats": more(subscribe="edge.heartbeat.>"),
    "one subject less": lambda grant: replace(grant, publish=grant.publish[1:]),
}


@pytest.mark.parametrize("name", WHO)
@pytest.mark.parametrize("change", WIDENED)
async def test_the_matrix_notices_a_grant_that_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, name: str
) -> None:
    def changed(*args: object, **options: object) -> Grant:
        return WIDENED[change](grants.template(*args, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(nats_accounts, "template", changed)
    async with secured_nats(tmp_path) as secured:
        assert await differences(secured, name) != set()


MISSING = {
    "poller": [f"{GET}config.pollers.p1.agents.nobody"],
    "agent": [f"{GET}config.agents.a1.checkers.nobody"],
    "checker": [],
}
SPOOFED = (
    "$KV.registry.agent.victim",
    "$KV.config.config/pollers/p2.json",
    "$KV.config_watch.config.pollers.p2",
    "$KV.api_tokens.admin",
    "registry.audit.x",
    "$JS.API.STREAM.DELETE.KV_idempotency",
    "$JS.API.STREAM.DELETE.KV_config_watch",
    "$JS.API.STREAM.PURGE.KV_registry",
    "$JS.API.CONSUMER.DELETE.KV_registry.made",
    "jetway.known",
    "jetway.renew.agent.p1.a2",
    "edge.heartbeat.agent.p1.a2",
    "edge.heartbeat.relay",
    "edge.config.pollers.p2",
    "_INBOX.x",
    "$SYS.REQ.CLAIMS.DELETE",
)


@pytest.mark.parametrize("name", WHO)
async def test_an_answer_sent_elsewhere_stays_among_edge_hosts_and_bears_its_origin(
    tmp_path: Path, name: str
) -> None:
    """The server answers to any subject that a question names. None of it may reach the gateway's account."""
    async with secured_nats(tmp_path) as secured:
        await secured.jetstream.publish("$KV.registry.agent.victim", b"GOOD", expected=0)
        for key in WATCHED[name]:
            await secured.jetstream.publish(f"$KV.config.{key.replace('.', '/')}.json", b"{}", expected=0)
        await secured.jetstream.call(
            "CONSUMER.CREATE.KV_registry.made",
            {"stream_name": "KV_registry", "config": {"durable_name": "made", "ack_policy": "all"}},
        )
        before = await state_of_streams(secured)
        reached: list[Msg] = []
        seen: list[Msg] = []
        await secured.gateway.subscribe(">", reached.append)
        await secured.edge.subscribe(">", seen.append)
        host = await secured.host(WHO[name])
        asked = [subject for subject in MAY_PUBLISH[name] if subject.startswith("$JS")]
        # The answer to these is empty, as a request to delete or purge a stream has to be.
        asked += MISSING[name]
        for subject in asked:
            for reply in SPOOFED:
                await host.publish(subject, reply)
        assert await host.denied() == {"publish": {"the.last.one"}, "subscription": set()}
        await answered(secured, host, seen)

        ours = [
            message for message in reached if not message.subject.startswith(("$JS.API.DIRECT.GET", "edge."))
        ]
        assert [
            message.subject for message in ours if message.subject in SPOOFED and message.data != b"GOOD"
        ] == []
        assert await state_of_streams(secured) == before
        answers = [message for message in seen if message.subject in SPOOFED]
        assert answers
        for message in answers:
            assert {"Status", "Nats-Subject"} & set(map(str, message.headers or {})), message
        # Who listens to changes tells by this header whether one is of the key that the subject names.
        live = [message for message in answers if message.subject == "edge.config.pollers.p2"]
        assert live
        assert all("p2" not in (message.headers or {}).get("Nats-Subject", "") for message in live)


async def state_of_streams(secured: SecuredNats) -> dict[str, object]:
    """How far each stream is, and how many consumers it has."""
    state: dict[str, object] = {}
    for stream in STREAMS:
        info = await secured.jetstream.call(f"STREAM.INFO.{stream}")
        if stream not in ("REGISTRY_EVENTS", "KV_config_watch"):
            state[stream] = (info["state"]["last_seq"], info["state"]["messages"])
        state[f"{stream} consumers"] = info["state"]["consumer_count"]
    return state


async def answered(secured: SecuredNats, host: Host, seen: list[Msg]) -> None:
    """Until the answers have come: one more question, whose answer goes the same way behind theirs."""
    own = next(iter(WATCHED[host.name]))
    await host.publish(GET + own, "edge.heartbeat.echo")
    async with asyncio.timeout(30):
        while not any(message.subject == "edge.heartbeat.echo" for message in seen):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await secured.gateway.request("$JS.API.INFO", timeout=30)
