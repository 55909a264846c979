"""A browser without a screen: it keeps cookies, sends forms as browsers do, and follows nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import ClientSession, CookieJar, FormData

from support.http_world import Answer, World

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class Browser:
    """One session with the dashboard of a world."""

    def __init__(self, world: World, session: ClientSession) -> None:
        self.world = world
        self.session = session

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.send("GET", path, headers=headers or {})

    async def post(
        self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await self.send("POST", path, headers={**SAME_ORIGIN, **(headers or {})}, data=dict(form))

    async def upload(self, path: str, form: Mapping[str, str], name: str, data: bytes) -> Answer:
        """A form with a file in it."""
        sent = FormData()
        for key, value in form.items():
            sent.add_field(key, value)
        sent.add_field(name, data, filename="many.csv", content_type="text/csv")
        return await self.send("POST", path, headers=SAME_ORIGIN, data=sent)

    async def sign_in(self, role: str = "operator", headers: Mapping[str, str] | None = None) -> Answer:
        answer = await self.post("/ui/sign-in", {"token": self.world.tokens[role]}, headers)
        assert answer.status == 303, answer.body
        return answer

    async def csrf(self, path: str) -> str:
        """The word that a page's forms carry."""
        found = re.search(rb'name="csrf" value="([^"]+)"', (await self.get(path)).body)
        assert found, path
        return found[1].decode()

    async def send(self, method: str, path: str, **more: object) -> Answer:
        url = self.world.server.url + path
        async with self.session.request(method, url, allow_redirects=False, **more) as response:  # type: ignore[arg-type]
            return await Answer.of(response)


@asynccontextmanager
async def browsing(world: World) -> AsyncIterator[Browser]:
    """A browser that nobody signed in with yet."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        yield Browser(world, session)
