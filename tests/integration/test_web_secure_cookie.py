"""The session's cookie is `Secure` wherever browsers reach the gateway by HTTPS, also by that of a proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.browsing import browsing
from support.http_world import http_world

PROXY = ["127.0.0.1"]


@pytest.mark.parametrize(
    ("settings", "forwarded", "secure"),
    [
        ({}, {}, False),
        ({}, {"X-Forwarded-Proto": "https"}, False),
        ({"trusted_proxies": ["10.0.0.1"]}, {"X-Forwarded-Proto": "https"}, False),
        ({"trusted_proxies": PROXY}, {}, False),
        ({"trusted_proxies": PROXY}, {"X-Forwarded-Proto": "http"}, False),
        ({"trusted_proxies": PROXY}, {"X-Forwarded-Proto": "https"}, True),
        ({"trusted_proxies": PROXY}, {"X-Forwarded-Proto": "https, http"}, True),
        ({"public_url": "https://gateway.example"}, {}, True),
    ],
)
async def test_a_cookie_goes_no_other_way_than_it_came(
    tmp_path: Path, settings: dict[str, Any], forwarded: dict[str, str], secure: bool
) -> None:
    async with http_world(tmp_path, **settings) as world, browsing(world) as browser:
        cookie = (await browser.sign_in(headers=forwarded)).headers["Set-Cookie"]
        assert ("; Secure" in cookie) == secure
        themed = await browser.post("/ui/theme", {"theme": "dark"}, forwarded)
        assert ("; Secure" in themed.headers["Set-Cookie"]) == secure
