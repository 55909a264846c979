"""Edge hosts that reach somebody else's NATS servers through a proxy that lets only WebSocket through."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import nats
import pytest

from jetway.adapters.authority.nats_users import GivenSigner, NatsUsers
from jetway.adapters.nats import server
from jetway.core.creds import creds_text
from jetway.core.grants import GrantNames
from jetway.core.ids import Lineage, ServiceType
from support.nats_server import settled
from support.ports import free_port
from support.secured_nats import CLOCK, secured_nats

AGENT = Lineage(ServiceType.AGENT, "p1", "a1")


# nats-py gives aiohttp its time limit in a form that aiohttp wants to do without.
@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")
async def test_their_credentials_are_taken_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    websocket = f'websocket {{{{ listen: "127.0.0.1:{port}", no_tls: true }}}}\n'
    monkeypatch.setattr(server, "_CONFIG", server._CONFIG + websocket)
    async with secured_nats(tmp_path) as theirs:
        users = NatsUsers(GivenSigner(theirs.keys.edge, theirs.keys.edge.public, GrantNames()))
        public, seed = users.new_user()
        jwt = users.issue(
            public_key=public, lineage=AGENT, watch=False, now=CLOCK.now(), lifetime=timedelta(hours=1)
        )
        file = tmp_path / "a1.creds"
        file.write_text(creds_text(jwt, seed))
        heard: list[str] = []
        await theirs.edge.subscribe("edge.heartbeat.>", lambda message: heard.append(message.subject))
        host = await nats.connect(
            f"ws://127.0.0.1:{port}",
            user_credentials=str(file),
            inbox_prefix=AGENT.inbox_prefix.removesuffix("."),
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=30,
        )
        try:
            await host.publish("edge.heartbeat.agent.p1.a1")
            await settled(host)
            assert theirs.edge._client is not None
            await theirs.edge._client.flush()
        finally:
            await host.close()
        assert heard == ["edge.heartbeat.agent.p1.a1"]
