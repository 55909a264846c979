"""One client's connection: hello, then statement after statement, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from support.proton_standin import wire
from support.proton_standin.engine import Engine
from support.proton_standin.faults import Fault, Faults
from support.proton_standin.refusals import AUTHENTICATION_FAILED, Refused, not_modelled
from support.proton_standin.statements import Insert, Select
from support.proton_standin.wire import FromClient, Memory, Query, Stream, ToClient

T = TypeVar("T")


class Dropped(Exception):
    """The connection ends here."""


@dataclass(frozen=True, slots=True)
class Server:
    """What all connections share."""

    engine: Engine
    on_engine: Callable[..., Coroutine[Any, Any, Any]]
    """Runs a function of the engine on the engine's thread."""
    faults: Faults
    seen: Callable[[str], None]
    user: str
    password: str


class Connection:
    """Serves one client until one of the two has enough."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._stream = Stream(reader)
        self._writer = writer
        self._database = "default"

    async def serve(self) -> None:
        """Serve until the client leaves or a fault ends it."""
        try:
            await self._hello()
            while True:
                await self._writer.drain()
                await self._packet(await wire.take_number(self._stream))
        except (Dropped, OSError, EOFError):
            pass
        finally:
            self._writer.transport.abort()

    async def _hello(self) -> None:
        if await wire.take_number(self._stream) != FromClient.HELLO:
            raise Dropped
        await wire.take_text(self._stream)
        for _ in range(3):  # the client's version and revision
            await wire.take_number(self._stream)
        self._database = await wire.take_text(self._stream) or "default"
        user, password = await wire.take_text(self._stream), await wire.take_text(self._stream)
        if user != self._server.user or not hmac.compare_digest(
            password.encode(), self._server.password.encode()
        ):
            message = (
                f"{user}: Authentication failed: password is incorrect or there is no user with such name"
            )
            self._writer.write(wire.exception_packet(Refused(AUTHENTICATION_FAILED, message)))
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
            raise Dropped
        self._writer.write(wire.hello_packet())

    async def _packet(self, packet: int) -> None:
        if packet == FromClient.PING:
            self._writer.write(wire.number(ToClient.PONG))
        elif packet == FromClient.QUERY:
            await self._query(await wire.take_query(self._stream))
        elif packet != FromClient.CANCEL:  # a CANCEL may come after the answer
            raise Dropped

    async def _query(self, query: Query) -> None:
        """One statement. What is refused is answered, and the connection goes on."""
        await self._end_of_external_tables(query)
        self._server.seen(query.sql)
        fault = self._server.faults.strike(query.sql)
        try:
            if query.compressed:
                raise not_modelled("compression")
            await self._go_wrong(fault, "before")
            answer = await self._execute(query)
            await self._go_wrong(fault, "after")
            await self._send(answer, fault)
        except Refused as refused:
            self._writer.write(wire.exception_packet(refused))

    async def _end_of_external_tables(self, query: Query) -> None:
        if query.compressed:
            return
        await self._take_block()

    async def _take_block(self) -> wire.Block:
        if await wire.take_number(self._stream) != FromClient.DATA:
            raise Dropped
        return await wire.take_block_of_client(self._stream)

    async def _go_wrong(self, fault: Fault | None, moment: str) -> None:
        if fault is None or fault.moment != moment:
            return
        if fault.kind == "drop":
            raise Dropped
        if fault.kind == "error":
            raise Refused(fault.code, fault.message)
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)

    async def _execute(self, query: Query) -> bytes:
        """Do it, and give the answer's packets."""
        on_engine, engine = self._server.on_engine, self._server.engine
        statement = await on_engine(engine.read, query.sql, self._database, query.settings)
        if isinstance(statement, Insert) and not statement.source:
            await self._insert(statement)
            return wire.number(ToClient.END_OF_STREAM)
        if isinstance(statement, Select):
            header = wire.header_packet(await on_engine(engine.columns_of_answer, statement.sql))
            if statement.streaming:
                await self._never_end(header)
            return header + await _packets(await on_engine(engine.run, statement))
        return await _packets(await on_engine(engine.run, statement))

    async def _insert(self, insert: Insert) -> None:
        """Tell the client the columns, then take blocks until an empty one."""
        on_engine, engine = self._server.on_engine, self._server.engine
        columns = await on_engine(engine.columns_to_insert, insert)
        self._writer.write(wire.header_packet(columns))
        await self._writer.drain()
        while (block := await self._take_block()).columns:
            if block.rows:
                await on_engine(engine.append, insert, columns, block)

    async def _never_end(self, header: bytes) -> None:
        """A streaming query: it waits for rows to come, until the client cancels or leaves."""
        self._writer.write(header)
        await self._writer.drain()
        await wire.take_number(self._stream)
        raise Dropped

    async def _send(self, answer: bytes, fault: Fault | None) -> None:
        if fault and fault.kind == "half_block":
            self._writer.write(answer[: max(1, len(answer) // 2)])
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
            raise Dropped
        self._writer.write(answer)


async def _packets(answer: bytes) -> bytes:
    """The engine's answer as packets."""
    source, packets = Memory(answer), b""
    while not source.is_empty:
        packets += wire.data_packet(await wire.take_block_of_engine(source))
    return packets + wire.closing_packets()
