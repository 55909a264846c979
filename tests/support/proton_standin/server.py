"""The process that is the stand-in: `python -m support.proton_standin.server`, told by a pipe what to do.

Its first line of input is a JSON object with the arguments, its first line of output says the port. From then
on every line in is a command and is answered by a line. At the end of the input the process ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from support.proton_standin.connection import Connection, Server
from support.proton_standin.engine import Engine
from support.proton_standin.faults import Fault, Faults

_STATEMENTS_KEPT = 2000


class Process:
    """Connections on an event loop, the engine on one thread, commands from the pipe."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._thread = ThreadPoolExecutor(1)
        self._faults = Faults()
        self._statements: deque[str] = deque(maxlen=_STATEMENTS_KEPT)
        self._connections: set[asyncio.Task[None]] = set()
        self._engine: Engine

    async def run(self) -> None:
        """Serve until told to stop, or until the pipe ends."""
        self._engine = await self._on_engine(self._open_engine)
        server = Server(
            self._engine,
            self._on_engine,
            self._faults,
            self._statements.append,
            self._arguments["user"],
            self._arguments["password"],
        )

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            self._connections.add(task)
            try:
                await Connection(server, reader, writer).serve()
            finally:
                self._connections.discard(task)

        listening = await asyncio.start_server(serve, "127.0.0.1", self._arguments["port"], ssl=self._tls())
        _say({"port": listening.sockets[0].getsockname()[1]})
        await self._obey()
        listening.close()
        await self._on_engine(self._engine.close)

    def _open_engine(self) -> Engine:
        given = self._arguments
        return Engine(Path(given["folder"]), visible_after=given["visible_after"], memory=given["memory"])

    async def _on_engine(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _tls(self) -> ssl.SSLContext | None:
        if not self._arguments["certificate"]:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._arguments["certificate"], self._arguments["key"])
        return context

    async def _obey(self) -> None:
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            command = json.loads(line)
            if command["do"] == "stop":
                return
            _say(self._do(command))

    def _do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "visible_after":
                self._engine.visible_after = command["seconds"]
            case "fault":
                self._faults.add(Fault(**command["fault"]))
            case "clear_faults":
                self._faults.clear()
            case "drop_connections":
                for connection in self._connections:
                    connection.cancel()
        return {
            "fired": self._faults.fired,
            "connections": len(self._connections),
            "statements": list(self._statements) if command["do"] == "statements" else [],
        }


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Run the process."""
    asyncio.run(Process(json.loads(sys.stdin.readline())).run())
    # chDB's threads do not survive the interpreter's end in good order; everything is closed and flushed.
    os._exit(0)


if __name__ == "__main__":
    main()
